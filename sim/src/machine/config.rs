// SPDX-License-Identifier: BSD-2-Clause

//! How a machine is set up.

use freebsd_kernel_sys::FREEBSD_VERSION;

pub use crate::schedule::clock::ClockMode;

/// The release whose kernel is played.
///
/// Layouts come from the headers that the crate was built with. This chooses the behaviour
/// that differs: the number of filter slots, `f_userdump`, kern.proc.kq.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Release {
    /// FreeBSD 14.
    V14,
    /// FreeBSD 15.
    V15,
}

impl Release {
    /// The release that this crate was built for (see bindings/README.md).
    pub const BUILT_FOR: Release = if FREEBSD_VERSION >= 1_500_000 {
        Release::V15
    } else {
        Release::V14
    };

    /// `EVFILT_SYSCOUNT`: how many filter slots there are.
    pub(crate) fn filter_slots(self) -> usize {
        match self {
            Release::V14 => 13,
            Release::V15 => 15,
        }
    }

    /// `kern.osreldate`: of 14.3 and of 15.0.
    pub(crate) fn osreldate(self) -> i32 {
        match self {
            Release::V14 => 1_403_000,
            Release::V15 => 1_500_068,
        }
    }
}

/// How a machine is set up; [`Config::default`] is a FreeBSD of [`Release::BUILT_FOR`], on
/// virtual time.
#[derive(Clone, Debug)]
pub struct Config {
    /// The release whose kernel is played.
    pub release: Release,
    /// A later kernel of the same major, whose `struct filterops` has one more callback than
    /// the headers: on 14 `f_userdump`, with kern.proc.kq; on 15 `f_copy`, with
    /// KQUEUE_CPONFORK.
    pub later: bool,
    /// Which time passes.
    pub clock: ClockMode,
    /// Loader tunables, as kenv(1) shows them.
    pub tunables: Vec<(String, String)>,
    /// `kern.kq_calloutmax`: what the kernel itself allows all EVFILT_TIMERs together.
    pub kq_calloutmax: u32,
}

impl Default for Config {
    fn default() -> Self {
        Config {
            release: Release::BUILT_FOR,
            later: false,
            clock: ClockMode::Virtual,
            tunables: Vec::new(),
            // Not the kernel's own 4096, so that a program which does not ask is found.
            kq_calloutmax: 5000,
        }
    }
}
