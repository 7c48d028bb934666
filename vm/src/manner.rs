// SPDX-License-Identifier: BSD-2-Clause

//! How a kernel boots: the accelerator, the way into the kernel, and who loads the module.

use std::{fs::OpenOptions, time::Duration};

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

/// What executes the guest's instructions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Accelerator {
    /// Linux's hardware virtualisation.
    Kvm,
    /// macOS's hardware virtualisation.
    Hvf,
    /// QEMU itself.
    Tcg,
}

impl Accelerator {
    /// The accelerators that this host offers, best first.
    pub(crate) fn offered() -> Vec<Self> {
        let mut offered = Vec::new();
        if cfg!(all(target_os = "linux", target_arch = "x86_64"))
            && OpenOptions::new()
                .read(true)
                .write(true)
                .open("/dev/kvm")
                .is_ok()
        {
            offered.push(Accelerator::Kvm);
        }
        if cfg!(all(target_os = "macos", target_arch = "x86_64")) {
            offered.push(Accelerator::Hvf);
        }
        offered.push(Accelerator::Tcg);
        offered
    }
}

impl std::fmt::Display for Accelerator {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Accelerator::Kvm => "KVM",
            Accelerator::Hvf => "HVF",
            Accelerator::Tcg => "TCG",
        })
    }
}

/// The way into the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Way {
    /// Straight at the kernel's PVH entry. This is the quickest way, but stock
    /// kernels are not tested with it.
    Pvh,
    /// Through FreeBSD's own loader on a CD, which the BIOS starts. Every kernel boots this way.
    Loader,
    /// As `loader`, with UEFI firmware in place of the BIOS. Used only if asked for.
    Efi,
}

impl std::fmt::Display for Way {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Way::Pvh => "at the kernel's PVH entry",
            Way::Loader => "through FreeBSD's loader",
            Way::Efi => "through FreeBSD's loader for UEFI",
        })
    }
}

/// Who loads the module.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum By {
    /// The runner's first process, with kldload(2).
    #[default]
    Init,
    /// FreeBSD's loader, by `_load="YES"` in loader.conf(5).
    Loader,
    /// The root's own init(8) and rc(8), by `kld_list` in rc.conf(5).
    Rc,
}

/// One manner of booting a kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Manner {
    /// What executes the kernel.
    pub(crate) accelerator: Accelerator,
    /// The way into the kernel.
    pub(crate) way: Way,
}

impl Manner {
    /// Every manner that may work, the most promising first: the manner that worked before,
    /// then by speed.
    pub(crate) fn all(
        accelerators: &[Accelerator],
        ways: &[Way],
        worked: Option<Manner>,
    ) -> Vec<Manner> {
        let mut all: Vec<Manner> = accelerators
            .iter()
            .flat_map(|&accelerator| ways.iter().map(move |&way| Manner { accelerator, way }))
            .collect();
        if let Some(at) = all.iter().position(|manner| Some(*manner) == worked) {
            all[..=at].rotate_right(1);
        }
        all
    }

    /// How long a boot may print nothing before the runner gives up.
    pub(crate) fn patience(self) -> Duration {
        Duration::from_secs(match (self.accelerator, self.way) {
            (Accelerator::Tcg, Way::Pvh) => 60,
            (Accelerator::Tcg, Way::Loader | Way::Efi) => 180,
            (_, Way::Pvh) => 20,
            (_, Way::Loader | Way::Efi) => 40,
        })
    }

    /// The guest's name of the disk for the files that the guest hands back.
    pub(crate) fn out_disk(self) -> &'static str {
        match self.way {
            Way::Pvh => "/dev/vtbd1",
            Way::Loader | Way::Efi => "/dev/vtbd0",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TCG_PVH: Manner = Manner {
        accelerator: Accelerator::Tcg,
        way: Way::Pvh,
    };

    #[test]
    fn every_manner_is_tried_the_quickest_first() {
        let all = Manner::all(
            &[Accelerator::Kvm, Accelerator::Tcg],
            &[Way::Pvh, Way::Loader],
            None,
        );
        let shown: Vec<_> = all.iter().map(|m| (m.accelerator, m.way)).collect();
        assert_eq!(
            shown,
            [
                (Accelerator::Kvm, Way::Pvh),
                (Accelerator::Kvm, Way::Loader),
                (Accelerator::Tcg, Way::Pvh),
                (Accelerator::Tcg, Way::Loader)
            ]
        );
    }

    #[test]
    fn what_worked_before_is_tried_first_and_the_rest_keeps_its_order() {
        let all = Manner::all(
            &[Accelerator::Kvm, Accelerator::Tcg],
            &[Way::Pvh, Way::Loader],
            Some(TCG_PVH),
        );
        assert_eq!(all[0], TCG_PVH);
        assert_eq!(
            all[1],
            Manner {
                accelerator: Accelerator::Kvm,
                way: Way::Pvh
            }
        );
        assert_eq!(all.len(), 4);
    }

    #[test]
    fn what_worked_before_is_forgotten_where_the_host_no_longer_offers_it() {
        let worked = Manner {
            accelerator: Accelerator::Kvm,
            way: Way::Pvh,
        };
        assert_eq!(
            Manner::all(&[Accelerator::Tcg], &[Way::Pvh], Some(worked)),
            [TCG_PVH]
        );
    }
}
