//! The hand-picked mutants: the defects that code like this has had, or could have.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};

use super::Mutant;

/// A defect, by the text it replaces. That must be in the file exactly once: whoever
/// changes the code changes the list.
struct Picked {
    /// What it breaks.
    name: &'static str,
    file: &'static str,
    old: &'static str,
    new: &'static str,
}

const COUNTER: &str = "kmod/src/filters/counter.rs";
const TIMER: &str = "kmod/src/filters/timer.rs";
const GATE: &str = "kmod/src/filters/gate.rs";
const FAMILY: &str = "kmod/src/family.rs";
const UIDINFO: &str = "kmod/src/kernel/uidinfo.rs";
const CALLOUT: &str = "kmod/src/kernel/timer.rs";
const SHARED: &str = "kmod/src/kernel/shared.rs";
const MODULE: &str = "kmod/src/kernel/module.rs";

const PICKED: &[Picked] = &[
    Picked {
        name: "a trigger in the change that adds is lost",
        file: COUNTER,
        old: "counter.count_change(kev, cx)?;",
        new: "counter.wait(cx);",
    },
    Picked {
        name: "EV_CLEAR clears after the trigger in the same change",
        file: COUNTER,
        old: "        self.count_change(kev, cx)\n",
        new: "        self.count_change(kev, cx)?;\n        \
              if kev.flags & EV_CLEAR != 0 { self.count = 0; }\n        Ok(())\n",
    },
    Picked {
        name: "a count at its threshold is not due yet",
        file: COUNTER,
        old: "self.count >= self.threshold || self.overdue()",
        new: "self.count > self.threshold || self.overdue()",
    },
    Picked {
        name: "the count goes past INT64_MAX",
        file: COUNTER,
        old: "self.count = sum.min(COUNT_MAX);",
        new: "self.count = sum;",
    },
    Picked {
        name: "a delay outlives the count that waited for it",
        file: COUNTER,
        old: "&& delay.since.take().is_some()",
        new: "&& false",
    },
    Picked {
        name: "the overrun of a late delivery is one short",
        file: TIMER,
        old: "1 + more.unwrap_or(0)",
        new: "more.unwrap_or(1).max(1)",
    },
    Picked {
        name: "a late delivery moves the phase",
        file: TIMER,
        old: "self.next = report.ext[0] + self.period;",
        new: "self.next = cx.now() + self.period;",
    },
    Picked {
        name: "a deadline is early after the clock was set back",
        file: TIMER,
        old: "self.next = cx.boottime().uptime_at(self.deadline);",
        new: "",
    },
    Picked {
        name: "a restart leaves what is pending",
        file: TIMER,
        old: "self.fired = false;\n            self.next = cx.now() + self.interval;",
        new: "self.next = cx.now() + self.interval;",
    },
    Picked {
        name: "a refused change is half applied",
        file: FAMILY,
        old: "            filter = load(&kn);\n            if !receipt {",
        new: "            store(&mut kn, &filter, &cx);\n            if !receipt {",
    },
    Picked {
        name: "an error is reported for ever",
        file: FAMILY,
        old: "kn.set_mode(mode.without_errno().0 & !Mode::CHANGED | Mode::UNSETTLED);",
        new: "kn.set_mode(mode.0 & !Mode::CHANGED | Mode::UNSETTLED);",
    },
    Picked {
        name: "after an error, one-shot is shown when the scan has looked",
        file: FAMILY,
        old: "show_once(&mut kn, &filter, mode, filter.due());",
        new: "let _ = filter;",
    },
    Picked {
        name: "one-shot delivers what is not due",
        file: FAMILY,
        old: "if mode.forced() || (due && mode.asked() & EV_ONESHOT != 0) {",
        new: "if mode.forced() || (due | (mode.asked() & EV_ONESHOT != 0)) {",
    },
    Picked {
        name: "a user's limit, once reached, costs a timer of all",
        file: UIDINFO,
        old: "timers().fetch_sub(1, Relaxed);\n            Errno::ENOMEM",
        new: "Errno::ENOMEM",
    },
    Picked {
        name: "a charge is not given back",
        file: UIDINFO,
        old: "sys::chgkqcnt(self.uip.as_ptr(), -1, 0);",
        new: "",
    },
    Picked {
        name: "kern.kqx.timer_max allows one more",
        file: UIDINFO,
        old: "(n < max)",
        new: "(n <= max)",
    },
    Picked {
        name: "a timer is freed without a drain",
        file: CALLOUT,
        old: "sys::kqx_callout_drain(timer.as_ref().callout.get())",
        new: "()",
    },
    Picked {
        name: "an expiry wakes nobody",
        file: CALLOUT,
        old: "sys::knote(timer.knlist.get(), FROM_KNOTE, sys::KNF_LISTLOCKED as c_int)",
        new: "()",
    },
    Picked {
        name: "an expiry in the middle of f_attach is tried again",
        file: CALLOUT,
        old: "if timer.seen.get() < timer.knotes.get() && !asked_anyway {",
        new: "if timer.seen.get() < timer.knotes.get() {",
    },
    Picked {
        name: "EV_ADD relies on the callout that tries again",
        file: CALLOUT,
        old: "(TRIED_AGAIN + 1..=latest)",
        new: "(TRIED_AGAIN..=latest)",
    },
    Picked {
        name: "a scan delivers a one-shot that overtook it, and keeps it",
        file: FAMILY,
        old: "if once && kn.has_timer() && !before_scan && mode.0 & Mode::CHANGED == 0 {",
        new: "if once && false {",
    },
    Picked {
        name: "an expiry that was not seen is not tried again",
        file: CALLOUT,
        old: "if timer.seen.get() < timer.knotes.get() && !asked_anyway {",
        new: "if asked_anyway && false {",
    },
    Picked {
        name: "an earlier time does not move a pending callout",
        file: CALLOUT,
        old: "if (TRIED_AGAIN + 1..=latest).contains(&self.timer.latest.get()) {",
        new: "if self.timer.latest.get() != u64::MAX {",
    },
    Picked {
        name: "a watcher that leaves takes its trigger along",
        file: FAMILY,
        old: "            if !delivered {\n                release::<F>(kn);\n            }",
        new: "            let _ = (kn, delivered);",
    },
    Picked {
        name: "a watcher that took its trigger stays first in the line",
        file: GATE,
        old: "cx.last = true;",
        new: "",
    },
    Picked {
        name: "a gate goes before its last watcher",
        file: SHARED,
        old: "if shared.refs.get() > 0 {",
        new: "if shared.refs.get() > 1 {",
    },
    Picked {
        name: "the gates of all processes are one",
        file: SHARED,
        old: "let mut next = self.chains[name.chain()].get();",
        new: "let theirs = self.chains.iter().filter_map(|chain| NonNull::new(chain.get()))\n            \
              .map(|timer| unsafe { timer.as_ref() }.shared.name)\n            \
              .find(|theirs| theirs.ident == name.ident);\n        \
              let name = theirs.unwrap_or(name);\n        \
              let mut next = self.chains[name.chain()].get();",
    },
    Picked {
        name: "a trigger in the middle of a dump wakes nobody",
        file: CALLOUT,
        old: "matches!(timer.stage.load(Relaxed), ADDING | FRESH)",
        new: "timer.stage.load(Relaxed) != KNOWN",
    },
    Picked {
        name: "the module unloads while there are registrations",
        file: MODULE,
        old: "quiesce()?;\n        kqueue_del_filteropts(filter())?;",
        new: "let _ = (quiesce(), kqueue_del_filteropts(filter()));",
    },
];

/// All of them, found in the tree whose top is `sources`.
pub fn mutants(sources: &Path) -> Result<Vec<Mutant>> {
    PICKED.iter().map(|picked| picked.find(sources)).collect()
}

impl Picked {
    fn find(&self, sources: &Path) -> Result<Mutant> {
        let text = fs::read_to_string(sources.join(self.file)).context(self.file)?;
        let places: Vec<usize> = (text.match_indices(self.old)).map(|(at, _)| at).collect();
        let [at] = places[..] else {
            anyhow::bail!(
                "the mutant `{}`: its text is {} times in {}, not once; see {}",
                self.name,
                places.len(),
                self.file,
                file!()
            );
        };
        ensure!(self.old != self.new, "the mutant `{}` is none", self.name);
        Ok(Mutant {
            name: self.name.to_owned(),
            file: self.file.to_owned(),
            at: at..at + self.old.len(),
            text: self.new.to_owned(),
        })
    }
}

#[cfg(test)]
mod tests {
    /// Said by `cargo test`, not at the end of `make test`.
    #[test]
    fn every_picked_mutant_is_in_the_tree_once() {
        super::mutants(crate::release::root()).unwrap();
    }
}
