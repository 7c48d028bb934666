// SPDX-License-Identifier: BSD-2-Clause

//! Puts a guest together: the files of its root, and the plan that its first process follows.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Result, ensure};
use kqx_init::{HOME, INIT, LIBRARY, LIMIT, PLAN, Plan, Program};

use crate::artefacts::Artefacts;
use crate::image::Image;
use crate::manner::By;

/// A guest that is being put together.
pub(crate) struct Guest<'a> {
    artefacts: &'a Artefacts,
    base: &'a Path,
    image: Image,
    plan: Plan,
}

impl<'a> Guest<'a> {
    /// A guest with the root `base`. Its status lines carry `nonce`, and it hands back its
    /// files on the disk `out`.
    pub(crate) fn new(
        artefacts: &'a Artefacts,
        base: &'a Path,
        nonce: &str,
        out: &str,
    ) -> Result<Self> {
        let mut image = Image::new(base);
        image.program(INIT, &artefacts.init)?;
        image.text("/etc/hosts", "127.0.0.1 localhost\n".to_owned());
        image.file(artefacts.module_in_guest(), &artefacts.module);
        if let Some(harness) = &artefacts.harness {
            image.program(in_home(harness), harness)?;
        }
        let plan = Plan {
            nonce: nonce.to_owned(),
            module: artefacts.module_in_guest(),
            repeat: 1,
            limit: LIMIT,
            out: out.to_owned(),
            ..Plan::default()
        };
        Ok(Guest {
            artefacts,
            base,
            image,
            plan,
        })
    }

    /// Makes the guest run the harness, if there is a harness.
    pub(crate) fn run_harness(&mut self, args: Vec<String>) {
        let harness = self.artefacts.harness.as_deref();
        self.plan.main = harness.map(|harness| Program {
            path: in_home(harness),
            args,
            preloaded: false,
        });
    }

    /// Makes the guest run another program, `repeat` times. The program is a file in the
    /// guest's root or on this host.
    pub(crate) fn run_other(&mut self, program: &str, args: &[String], repeat: u32) -> Result<()> {
        let below = program.trim_start_matches('/');
        let in_base = self.base.join(below);
        let (source, path) = if in_base.is_file() {
            (in_base, format!("/{below}"))
        } else {
            (PathBuf::from(program), in_home(Path::new(program)))
        };
        ensure!(
            source.is_file(),
            "{program} is neither a file here nor in {}",
            self.base.display()
        );
        if fs::read(&source)?.starts_with(b"#!") {
            self.image.file(&path, &source);
            self.image.commands()?;
        } else {
            self.image.program(&path, &source)?;
        }
        let args = args.to_vec();
        self.plan.main = Some(Program {
            path,
            args,
            preloaded: false,
        });
        self.plan.repeat = repeat;
        Ok(())
    }

    /// Makes the guest run, after the main program, the programs whose name contains `filter`,
    /// each for at most `limit` seconds.
    pub(crate) fn run_programs(&mut self, filter: Option<&str>, limit: Option<u32>) -> Result<()> {
        if let Some(library) = &self.artefacts.library {
            self.image.program(LIBRARY, library)?;
        }
        self.plan.limit = limit.unwrap_or(LIMIT);
        for program in &self.artefacts.programs {
            if program.is_named(filter) {
                let path = format!("{HOME}/{}", program.name);
                self.image.program(&path, &program.file)?;
                let args = program.args.clone();
                let when = if program.unloaded {
                    &mut self.plan.last
                } else {
                    &mut self.plan.then
                };
                when.push(Program {
                    path,
                    args,
                    preloaded: program.preloaded,
                });
            }
        }
        Ok(())
    }

    /// Gives the guest a shell, and every command of its root.
    pub(crate) fn run_shell(&mut self) -> Result<()> {
        ensure!(
            self.base.join("bin/sh").is_file(),
            "{} has no bin/sh: give a --base with a shell, or leave out --shell",
            self.base.display()
        );
        self.image.commands()?;
        self.plan.shell = Some("/bin/sh".to_owned());
        Ok(())
    }

    /// Gives the guest a copy of a file or program of this host.
    pub(crate) fn bring(&mut self, file: &Path) -> Result<()> {
        ensure!(file.is_file(), "{} is no file", file.display());
        self.image.file_or_program(in_home(file), file)
    }

    /// Makes `by` load the module.
    pub(crate) fn load_by(&mut self, by: By) -> Result<()> {
        self.plan.loaded = by != By::Init;
        if by == By::Rc {
            self.image.system(&self.artefacts.module_name())?;
        }
        Ok(())
    }

    /// The image of the guest's root.
    pub(crate) fn image(mut self) -> Result<Image> {
        self.image.text(PLAN, serde_json::to_string(&self.plan)?);
        Ok(self.image)
    }
}

/// The path in the guest of a file that the runner brings.
fn in_home(file: &Path) -> String {
    let name = file.file_name().unwrap_or_default();
    format!("{HOME}/{}", name.display())
}
