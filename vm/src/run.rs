// SPDX-License-Identifier: BSD-2-Clause

//! A run: boots a kernel, runs what the user asks for, and returns the conclusion.

use std::{path::Path, time::Instant};

use anyhow::{Context, Result, ensure};

use crate::artefacts::Artefacts;
use crate::cache::{Cache, Pair};
use crate::conclusion::Conclusion;
use crate::console::{self, Console};
use crate::done::Done;
use crate::guest::Guest;
use crate::kernel::Kernel;
use crate::manner::{Manner, Way};
use crate::options::Run;
use crate::record::Record;
use crate::{out, qemu};

impl Run {
    /// Runs on every kernel that the user asked for, with the `artefacts` for that kernel.
    /// Leaves the files of each run below `home`. Returns the gravest exit status.
    pub fn on_each(
        &self,
        home: &Path,
        artefacts: impl Fn(&Kernel) -> Result<Artefacts>,
    ) -> Result<u8> {
        let scratch = tempfile::tempdir()?;
        let mut pairs = self.which.pairs(scratch.path())?;
        if let Some(name) = &self.save {
            ensure!(
                pairs.len() == 1,
                "--save keeps one kernel; {} are chosen: use --kernel and --base, or --release",
                pairs.len()
            );
            pairs = vec![Cache::of_user()?.save(&pairs[0], name)?];
        }
        if pairs.is_empty() {
            println!(
                "vm: no kernel is kept, so nothing ran on a real one; see `cargo xtask vm run --help`"
            );
        }
        let mut gravest = 0;
        for pair in &pairs {
            let (done, _) = self.on(pair, home, &artefacts)?;
            gravest = gravest.max(done.conclusion.code());
        }
        Ok(gravest)
    }

    /// Runs on one kernel.
    pub(crate) fn on(
        &self,
        pair: &Pair,
        home: &Path,
        artefacts: impl FnOnce(&Kernel) -> Result<Artefacts>,
    ) -> Result<(Done, Record)> {
        ensure!(
            !self.shell || qemu::on_a_terminal(),
            "--shell needs a terminal"
        );
        let kernel = Kernel::read(&pair.kernel)?;
        let artefacts = artefacts(&kernel)?;
        let record = Record::new(home, &pair.name)?;
        let cache = Cache::of_user()?;
        let mut done = None;
        for manner in self.manners(pair, &kernel, cache.manner(&kernel.sha256))? {
            let attempt = self.boot(pair, &kernel, &artefacts, manner, &record)?;
            let started = !matches!(attempt.conclusion, Conclusion::NotStarted { .. });
            // A manner that the user chose need not be the best manner.
            if started && attempt.conclusion != Conclusion::Interrupted && !self.insists() {
                cache.remember(&kernel.sha256, manner)?;
            }
            done = Some(attempt);
            if started {
                break;
            }
        }
        let done = done.context("this kernel has no manner of booting: see `vm run --help`")?;
        done.tell(&pair.name, &record)?;
        Ok((done, record))
    }

    /// Boots once, in one manner.
    fn boot(
        &self,
        pair: &Pair,
        kernel: &Kernel,
        artefacts: &Artefacts,
        manner: Manner,
        record: &Record,
    ) -> Result<Done> {
        let hardware = self.hardware();
        println!(
            "vm: {}: {}, {}; {}, {} {}, {}",
            pair.name,
            kernel.version,
            kernel.checks(),
            manner.accelerator,
            hardware.cpus,
            if hardware.cpus == 1 { "CPU" } else { "CPUs" },
            manner.way
        );
        let nonce = console::nonce();
        let plan = self.plan(artefacts, &nonce, manner.out_disk());
        let mut guest = Guest::new(artefacts, &pair.base, plan, self.filter())?;
        self.instruct(&mut guest)?;
        let mut image = guest.image()?;
        let variables = self.variables(manner.way, artefacts);
        if manner.way != Way::Pvh {
            image.boot(manner.way, &pair.kernel, &variables)?;
        }
        let work = tempfile::tempdir_in(record.directory())?;
        let (iso, disk) = (work.path().join("image.iso"), work.path().join("out.img"));
        image.write(&work.path().join("stage"), &iso)?;
        out::blank(&disk)?;

        let log = record.log();
        let mut command = qemu::command(
            manner,
            &hardware,
            &pair.kernel,
            &variables,
            &iso,
            &disk,
            &log,
        );
        if let Some(plugin) = &self.plugin {
            command
                .arg("-plugin")
                .arg(qemu::plugin(plugin, &record.counts()));
        }
        let mut console = Console::new(&nonce);
        let started = Instant::now();
        let end = if self.shell {
            qemu::run_interactively(command, &log, &mut console)?
        } else {
            if self.gdb {
                eprintln!(
                    "vm: waiting for a debugger: gdb {} -ex 'target remote :1234'",
                    pair.kernel.display()
                );
            }
            qemu::start(command)?.watch(&log, self.limits(manner), &mut console)?
        };
        let time = started.elapsed();
        out::unpack(&disk, &record.out())?;
        if self.keep {
            println!("vm: kept: {}", work.keep().display());
        }
        let done = Done::new(console, end, time, &artefacts.programs, self.filter());
        if let Conclusion::NotStarted { .. } = done.conclusion {
            eprintln!(
                "vm: {}: {} {}: {}; last line: {}",
                pair.name,
                manner.accelerator,
                manner.way,
                done.conclusion,
                done.console.last()
            );
        }
        Ok(done)
    }
}
