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
const GROUP: &str = "kmod/src/kernel/group.rs";
const ACCOUNT: &str = "kmod/src/kernel/account.rs";
const ENTRY: &str = "kmod/src/kernel/entry.rs";

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
        old: "self.stage = Stage::Waiting;\n            cx.arm",
        new: "cx.arm",
    },
    Picked {
        name: "a refused change is half applied",
        file: FAMILY,
        old: "        filter = load(&kn);\n        if !receipt {",
        new: "        store(&mut kn, &filter, &cx);\n        if !receipt {",
    },
    Picked {
        name: "an error is reported for ever",
        file: FAMILY,
        old: "kn.set_mode(mode.without_errno().0 | Mode::UNSETTLED);",
        new: "kn.set_mode(mode.0 | Mode::UNSETTLED);",
    },
    Picked {
        name: "after an error, one-shot is shown when the scan has looked",
        file: FAMILY,
        old: "    show_once(&mut kn, &filter, mode, due);\n    if !due {",
        new: "    if !due {",
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
        old: "timers().fetch_sub(1, Relaxed);",
        new: "",
    },
    Picked {
        name: "a charge is not given back",
        file: UIDINFO,
        old: "sys::chgkqcnt(sys::kqx_cr_ruidinfo(self.0.as_ptr()), -1, 0);",
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
        old: "if !timer.seen.get() && timer.stage.load(Relaxed) != FRESH {",
        new: "if !timer.seen.get() {",
    },
    Picked {
        name: "EV_ADD relies on the callout that tries again",
        file: CALLOUT,
        old: "(TRIED_AGAIN + 1..=latest)",
        new: "(TRIED_AGAIN..=latest)",
    },
    Picked {
        name: "an expiry that was not seen is not tried again",
        file: CALLOUT,
        old: "if !timer.seen.get() && timer.stage.load(Relaxed) != FRESH {",
        new: "if false {",
    },
    Picked {
        name: "an expiry is tried again every 100 us",
        file: CALLOUT,
        old: "AGAIN_MAX.min(AGAIN << before.min(7))",
        new: "AGAIN_MAX.min(AGAIN << before.min(0))",
    },
    Picked {
        name: "an expiry that was seen is tried again as late as before",
        file: CALLOUT,
        old: "timer.tries.set(0);",
        new: "",
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
        old: "            if !delivered {\n                give_back::<F>(member);\n            }",
        new: "            let _ = (member, delivered);",
    },
    Picked {
        name: "a watcher that took its trigger is the first in the line",
        file: GROUP,
        old: "Place::Away => (line.last.get(), null_mut()),",
        new: "Place::Away => (null_mut(), line.first.get()),",
    },
    Picked {
        name: "a watcher that was missed gets no other offer",
        file: GROUP,
        old: "if missed.first.get().is_null() {",
        new: "if false {",
    },
    Picked {
        name: "a trigger that was offered in a dump is lost",
        file: GROUP,
        old: "                self.restore(before.1);\n",
        new: "",
    },
    Picked {
        name: "a query does not count the watcher's own trigger",
        file: GATE,
        old: "self.shared.waiting.saturating_add(self.woken.into())",
        new: "self.shared.waiting",
    },
    Picked {
        name: "a gate may have a watcher more",
        file: GROUP,
        old: "group.watchers.get() >= watcher_max()",
        new: "group.watchers.get() > watcher_max()",
    },
    Picked {
        name: "a disabled watcher keeps its trigger",
        file: FAMILY,
        old: "    if disabled {\n        give_back::<F>(member);",
        new: "    if disabled {",
    },
    Picked {
        name: "a gate goes before its last watcher",
        file: GROUP,
        old: "if group.refs.get() > 0 {",
        new: "if group.refs.get() > 1 {",
    },
    Picked {
        name: "the gates of all processes are one",
        file: GROUP,
        old: "let mut next = self.0[name.chain()].get();",
        new: "let theirs = self.0.iter().filter_map(|chain| NonNull::new(chain.get()))\n            \
              .map(|group| unsafe { group.as_ref() }.name)\n            \
              .find(|theirs| theirs.ident == name.ident);\n        \
              let name = theirs.unwrap_or(name);\n        \
              let mut next = self.0[name.chain()].get();",
    },
    Picked {
        name: "a change leaves the event that it takes back on the queue",
        file: FAMILY,
        old: "kn.knote_dequeue();",
        new: "",
    },
    Picked {
        name: "a delivery that leaves nothing leaves the knote on the queue",
        file: FAMILY,
        old: "        flags | EV_CLEAR\n",
        new: "        flags\n",
    },
    Picked {
        name: "an overdue count that is added again waits anew",
        file: COUNTER,
        old: "if cx.arm == Some(Arm::Off) && cx.now() >= deadline {",
        new: "if false {",
    },
    Picked {
        name: "a delay that was taken away makes the count due",
        file: COUNTER,
        old: "max: max @ 1..,",
        new: "max,",
    },
    Picked {
        name: "a deadline that was taken is still to come",
        file: TIMER,
        old: "self.stage = Stage::Over;",
        new: "self.stage = Stage::Waiting;",
    },
    Picked {
        name: "a user may have a timer more",
        file: ACCOUNT,
        old: "if timers >= max {",
        new: "if timers > max {",
    },
    Picked {
        name: "an account keeps the timers that are gone",
        file: ACCOUNT,
        old: ".timers.fetch_sub(1, Relaxed);",
        new: ";",
    },
    Picked {
        name: "nothing is kept for root",
        file: UIDINFO,
        old: "(all - all / 20, timer_max_user().load(Relaxed))",
        new: "(all, timer_max_user().load(Relaxed))",
    },
    Picked {
        name: "a thread that comes after the unload goes in",
        file: ENTRY,
        old: "\"js 2f\",",
        new: "\"nop\",",
    },
    Picked {
        name: "a refused EV_ADD keeps the module",
        file: ENTRY,
        old: "\"jnz 3f\",",
        new: "\"nop\",",
    },
    Picked {
        name: "the module unloads while there are registrations",
        file: ENTRY,
        old: ".compare_exchange(0, CLOSED, Ordering::Acquire, Ordering::Relaxed)",
        new: ".compare_exchange(self.live.load(Ordering::Relaxed), CLOSED, Ordering::Acquire, Ordering::Relaxed)",
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
