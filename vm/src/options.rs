// SPDX-License-Identifier: BSD-2-Clause

//! What a user can ask of a run, and what follows from each option.

use std::{path::PathBuf, time::Duration};

use anyhow::{Result, bail, ensure};
use clap::Args;
use kqx_init::{LIMIT, OUT, Plan};

use crate::artefacts::{Artefacts, Program, in_home};
use crate::cache::Pair;
use crate::guest::Guest;
use crate::image;
use crate::kernel::Kernel;
use crate::machine::Limits;
use crate::manner::{Accelerator, By, Manner, Way};
use crate::qemu::{self, Hardware, INIT_PATH};
use crate::record::JUNIT;
use crate::which::Which;

/// What to run, and how.
#[derive(Args, Clone, Debug, Default)]
pub struct Run {
    #[command(flatten)]
    pub(crate) which: Which,
    /// Keep the kernel and the root under this name
    #[arg(long, value_name = "NAME")]
    pub(crate) save: Option<String>,
    /// Virtual CPUs
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..=64))]
    smp: u32,
    /// Only the cases and programs whose name contains TEXT
    #[arg(long, value_name = "TEXT")]
    filter: Option<String>,
    /// Run every case N times in one boot
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..), conflicts_with = "stress")]
    repeat: u32,
    /// Run the stress loads instead, each for SECONDS
    #[arg(long, value_name = "SECONDS", num_args = 0..=1, default_missing_value = "10")]
    stress: Option<u32>,
    /// Run the hostile loads instead, each for SECONDS
    #[arg(long, value_name = "SECONDS", num_args = 0..=1, default_missing_value = "10", conflicts_with_all = ["stress", "repeat"])]
    hostile: Option<u32>,
    /// The time limit from the start of the first process [600, and the time of --stress;
    /// 7200 with --hostile]
    #[arg(long, value_name = "SECONDS")]
    timeout: Option<u64>,
    /// Keep the image and the disk, to boot again with the command in the console log
    #[arg(long)]
    pub(crate) keep: bool,
    /// A shell on the console after the run
    #[arg(long)]
    pub(crate) shell: bool,
    /// Wait for a debugger on port 1234 before the kernel's first instruction
    #[arg(long)]
    pub(crate) gdb: bool,
    /// A variable for the kernel's environment
    #[arg(long, value_name = "NAME=VALUE", value_parser = variable)]
    pub(crate) append: Vec<(String, String)>,
    /// Time counts instructions, on one CPU: slow, and the same in each run
    #[arg(long)]
    icount: bool,
    /// Only this accelerator, not the first that works
    #[arg(long, value_name = "ACCELERATOR")]
    accel: Option<Accelerator>,
    /// Only this way into the kernel, not the first that works
    #[arg(long, value_name = "WAY")]
    boot: Option<Way>,
    /// Who loads the module
    #[arg(long, value_name = "WHO", value_enum, default_value_t)]
    pub(crate) load: By,
    /// Another file or program for the guest, which finds it in /kqx
    #[arg(long, value_name = "FILE")]
    bring: Vec<PathBuf>,
    /// Another program or script, from this host or the guest's root, with its arguments
    #[arg(last = true, value_name = "PROGRAM")]
    program: Vec<String>,
    /// The file for the harness's measurements, if the harness measures.
    #[arg(skip)]
    bench: Option<String>,
    /// The plugin of QEMU that counts what the harness measures.
    #[arg(skip)]
    pub(crate) plugin: Option<PathBuf>,
    /// The time limit of each program after the harness, in seconds, if it is not the usual.
    #[arg(skip)]
    limit: Option<u32>,
}

impl Run {
    /// A run of the suite and the programs whose name contains `filter`.
    pub(crate) fn suite(filter: Option<String>) -> Run {
        Run {
            filter,
            repeat: 1,
            ..Run::default()
        }
    }

    /// A run of programs alone, each for at most `limit` seconds.
    pub(crate) fn programs(limit: u32) -> Run {
        Run {
            smp: 2,
            repeat: 1,
            timeout: Some(3600),
            limit: Some(limit),
            ..Run::default()
        }
    }

    /// A run in which the harness measures, in instructions of one CPU. The guest hands
    /// back the measurements as the file `to`. `filter`: only those benchmarks. `plugin`: QEMU
    /// loads the plugin, which writes [`Record::counts`](crate::record::Record::counts).
    pub(crate) fn bench(to: &str, filter: Option<String>, plugin: Option<PathBuf>) -> Run {
        Run {
            filter,
            smp: 1,
            repeat: 1,
            timeout: Some(3600),
            icount: true,
            bench: Some(to.to_owned()),
            plugin,
            ..Run::default()
        }
    }

    /// Whether the suite runs, and nothing else in its place.
    pub fn is_the_suite(&self) -> bool {
        self.program.is_empty()
            && self.stress.is_none()
            && self.hostile.is_none()
            && self.bench.is_none()
    }

    /// The text that the name of a case or program must contain.
    pub fn filter(&self) -> Option<&str> {
        self.filter.as_deref()
    }

    /// Whether the suite runs beside the `programs`. The suite stays out if the filter names
    /// some of the programs, and `list`, a case in each line, has no case for the filter.
    ///
    /// # Errors
    /// The error of `list`.
    pub fn leaves_cases(
        &self,
        programs: &[Program],
        list: impl FnOnce() -> Result<String>,
    ) -> Result<bool> {
        let Some(text) = self.filter() else {
            return Ok(true);
        };
        let named = programs.iter().any(|program| program.is_named(Some(text)));
        let case = |line: &str| {
            line.split(' ')
                .next()
                .is_some_and(|name| name.contains(text))
        };
        Ok(!named || list()?.lines().any(case))
    }

    /// Whether the user chose the manner of booting.
    pub(crate) fn insists(&self) -> bool {
        self.accel.is_some() || self.boot.is_some() || self.icount
    }

    /// The manners in which the kernel may boot, the best first. `worked` is the manner
    /// that worked before.
    pub(crate) fn manners(
        &self,
        pair: &Pair,
        kernel: &Kernel,
        worked: Option<Manner>,
    ) -> Result<Vec<Manner>> {
        let mut ways = Vec::new();
        if kernel.pvh {
            ways.push(Way::Pvh);
        }
        let others = [Way::Loader, Way::Efi];
        ways.extend(
            others
                .into_iter()
                .filter(|&way| image::loader(&pair.base, way).is_some()),
        );
        ways.retain(|&way| match self.boot {
            Some(only) => only == way,
            None => way != Way::Efi,
        });
        // Without a loader, nobody reads loader.conf, and the root is no CD.
        ways.retain(|&way| self.load == By::Init || way != Way::Pvh);
        if ways.is_empty() {
            bail!(
                "{} cannot be booted: it needs a kernel with a PVH entry, or boot/loader and boot/cdboot in {}",
                pair.name,
                pair.base.display()
            );
        }
        let mut accelerators = Accelerator::offered();
        accelerators.retain(|&offered| {
            self.accel.is_none_or(|only| only == offered)
                && (!self.icount || offered == Accelerator::Tcg)
        });
        ensure!(
            !accelerators.is_empty(),
            "this host does not offer that accelerator: leave out --accel"
        );
        Ok(Manner::all(&accelerators, &ways, worked))
    }

    /// The kernel's environment.
    pub(crate) fn variables(&self, way: Way, artefacts: &Artefacts) -> Vec<(String, String)> {
        let mut variables = qemu::variables(way);
        match self.load {
            By::Init => {}
            By::Loader => {
                let name = format!("{}_load", artefacts.module_name());
                variables.push((name, "YES".to_owned()));
            }
            By::Rc => variables.retain(|(name, _)| name != INIT_PATH),
        }
        // The user's come last, so that they win.
        variables.extend(self.append.iter().cloned());
        variables
    }

    /// The machine's hardware.
    pub(crate) fn hardware(&self) -> Hardware {
        Hardware {
            cpus: match self.hostile {
                _ if self.icount => 1,
                // The victim has a CPU to itself, and two attackers run at the same time.
                Some(_) => self.smp.max(3),
                None => self.smp,
            },
            icount: self.icount,
            gdb: self.gdb,
            shell: self.shell,
        }
    }

    /// The time limits of the machine.
    pub(crate) fn limits(&self, manner: Manner) -> Limits {
        // Under a debugger, a time limit makes no sense.
        let forever = Duration::from_secs(365 * 24 * 3600);
        // The hostile loads load and unload the module a thousand times, which takes long.
        let usual = match self.hostile {
            Some(seconds) => 7200 + 20 * u64::from(seconds),
            None => 600 * u64::from(self.repeat) + 20 * u64::from(self.stress.unwrap_or(0)),
        };
        Limits {
            boot: if self.gdb { forever } else { manner.patience() },
            run: match self.timeout {
                Some(seconds) => Duration::from_secs(seconds),
                None if self.gdb => forever,
                None => Duration::from_secs(usual),
            },
        }
    }

    /// The plan of a guest that runs the harness, if there is a harness, and then the programs.
    /// Its status lines carry `nonce`, and it hands back its files on the disk `out`.
    pub(crate) fn plan(&self, artefacts: &Artefacts, nonce: &str, out: &str) -> Plan {
        let programs = |unloaded| {
            let programs = artefacts.programs.iter();
            programs
                .filter(|program| program.unloaded == unloaded && program.is_named(self.filter()))
                .map(Program::in_guest)
                .collect()
        };
        let harness = artefacts.harness.as_deref();
        Plan {
            nonce: nonce.to_owned(),
            module: artefacts.module_in_guest(),
            main: harness.map(|harness| kqx_init::Program {
                path: in_home(harness),
                args: self.harness_arguments(artefacts),
                preloaded: false,
            }),
            repeat: 1,
            then: programs(false),
            limit: self.limit.unwrap_or(LIMIT),
            out: out.to_owned(),
            last: programs(true),
            ..Plan::default()
        }
    }

    /// Makes the guest run what else the user asks for.
    pub(crate) fn instruct(&self, guest: &mut Guest<'_>) -> Result<()> {
        if let Some((program, args)) = self.program.split_first() {
            guest.run_other(program, args, self.repeat)?;
        }
        if self.shell {
            guest.run_shell()?;
        }
        for file in &self.bring {
            guest.bring(file)?;
        }
        guest.load_by(self.load)?;
        Ok(())
    }

    /// The harness's arguments. The harness repeats the cases itself, so that its reports
    /// are whole.
    fn harness_arguments(&self, artefacts: &Artefacts) -> Vec<String> {
        let mut arguments: Vec<String> = Vec::new();
        if let Some(file) = &self.bench {
            arguments.extend(["bench".into(), "--json".into(), format!("{OUT}/{file}")]);
            arguments.extend(self.plugin.iter().map(|_| "--profile".into()));
            arguments.extend(self.filter.clone());
            return arguments;
        }
        let (command, option, number) = match (self.stress, self.hostile) {
            (Some(seconds), _) => ("stress", "--seconds", seconds),
            (_, Some(seconds)) => ("hostile", "--seconds", seconds),
            (None, None) => ("run", "--repeat", self.repeat),
        };
        arguments.extend(["--module".into(), artefacts.module_in_guest()]);
        arguments.extend([command.into(), option.into(), number.to_string()]);
        arguments.extend(["--tap".into(), "--junit".into(), format!("{OUT}/{JUNIT}")]);
        arguments.extend(self.filter.clone());
        arguments
    }
}

/// Splits `NAME=VALUE`. The kernel splits its environment at commas and white space.
fn variable(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() && !text.contains([',', ' ', '\t', '"']) => {
            Ok((name.to_owned(), value.to_owned()))
        }
        _ => Err("it takes NAME=VALUE without comma, space or quote".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_suite_is_left_out_where_only_a_program_has_the_name() {
        let programs = ["example.work_queue", "program.gate"].map(|name| Program {
            name: name.into(),
            file: name.into(),
            args: Vec::new(),
            unloaded: false,
            preloaded: false,
        });
        let leaves = |filter: Option<&str>| {
            let run = Run {
                filter: filter.map(str::to_owned),
                ..Run::default()
            };
            let list = || Ok("gate.all   Wakes a work_queue.\ntimer.once  Once.\n".to_owned());
            run.leaves_cases(&programs, list).unwrap()
        };
        assert!(!leaves(Some("work_queue")) && !leaves(Some("program.gate")));
        assert!(leaves(Some("gate")) && leaves(Some("timer")) && leaves(None));
        assert!(
            leaves(Some("neither")),
            "the suite says that it finds nothing"
        );
    }
}
