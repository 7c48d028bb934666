// SPDX-License-Identifier: BSD-2-Clause

//! Hostile loads: ordinary users act against each other, against root and against the
//! kernel, and root checks the result. A load reports its measurements in a line that
//! begins with `# `, as in the Test Anything Protocol.

use crate::stress::Load;
use crate::system::Feature;

mod dump;
mod gate;
mod timers;
mod unload;
mod users;

/// Every load, in the order in which they run.
pub const LOADS: &[Load] = &[
    Load {
        name: "hostile.unload",
        sentence: "The module works after a thousand unloads and loads, while a storm of \
                   changes is on its slot.",
        needs: &[Feature::Kernel, Feature::Module, Feature::Credentials],
        run: unload::run,
    },
    Load {
        name: "hostile.gate",
        sentence: "Thousands of watchers, triggered and missed, cost another user at most a \
                   twentieth of its wakes and of its work.",
        needs: &[Feature::Kernel, Feature::Credentials],
        run: gate::run,
    },
    Load {
        name: "hostile.timers",
        sentence: "Users that take all timers that they can get leave one to another user, and \
                   one to root.",
        needs: &[Feature::Processes, Feature::Credentials, Feature::Root],
        run: timers::users,
    },
    Load {
        name: "hostile.jail",
        sentence: "A jail that takes all timers that it can get leaves one to a user outside, \
                   and one to root.",
        needs: &[Feature::Jails, Feature::Credentials, Feature::Root],
        run: timers::jail,
    },
    Load {
        name: "hostile.dump",
        sentence: "Beside a loop that reads kern.proc.kq no trigger and no expiry is lost, and \
                   few callouts run.",
        needs: &[Feature::KernProcKq, Feature::Credentials],
        run: dump::counts,
    },
    Load {
        name: "hostile.table",
        sentence: "Registrations outlive every question that the kernel has for their filter: a \
                   dump, a fork.",
        needs: &[Feature::Processes, Feature::Credentials],
        run: dump::table,
    },
];
