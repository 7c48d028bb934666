// SPDX-License-Identifier: BSD-2-Clause

//! Puts a guest together: the files of its root, and the plan that its first process follows.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Result, ensure};
use kqx_init::{PLAN, Plan, Program};

use crate::artefacts::{Artefacts, in_home};
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
    /// A guest with the root `base`, which follows the `plan`. It gets the programs whose name
    /// contains `filter`.
    pub(crate) fn new(
        artefacts: &'a Artefacts,
        base: &'a Path,
        plan: Plan,
        filter: Option<&str>,
    ) -> Result<Self> {
        let mut image = Image::new(base);
        image.text("/etc/hosts", "127.0.0.1 localhost\n".to_owned());
        for (path, file) in artefacts.files(filter) {
            image.program(path, file)?;
        }
        Ok(Guest {
            artefacts,
            base,
            image,
            plan,
        })
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
