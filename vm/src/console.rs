// SPDX-License-Identifier: BSD-2-Clause

//! What the guest's serial console says about the run. The first process prints its
//! statuses, each with this run's nonce. The kernel prints its complaints. A complaint
//! before the first process starts does not count: FreeBSD has known lock order reversals
//! at boot.

use std::{
    collections::BTreeMap,
    hash::{BuildHasher, RandomState},
};

use kqx_init::Status;

use crate::conclusion::{Conclusion, End};

/// Words of the kernel that make a run worthless, and their meaning.
const COMPLAINTS: [(&str, Complaint); 9] = [
    ("panic:", Complaint::Panic),
    ("Fatal trap", Complaint::Panic),
    ("Fatal double fault", Complaint::Panic),
    ("Manual root filesystem specification", Complaint::Panic),
    ("lock order reversal", Complaint::Report),
    (
        "with the following non-sleepable locks held",
        Complaint::Report,
    ),
    ("leaked memory", Complaint::Report),
    ("was not empty", Complaint::Report),
    ("KASSERT failed", Complaint::Report),
];

#[derive(Clone, Copy, PartialEq, Eq)]
enum Complaint {
    /// The kernel is dead.
    Panic,
    /// The kernel lives on.
    Report,
}

/// How far the guest is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// The kernel boots.
    Booting,
    /// The first process has started.
    Running,
    /// Everything is handed back; the guest powers off.
    Done,
}

/// The console's text so far.
#[derive(Debug)]
pub(crate) struct Console {
    nonce: String,
    phase: Phase,
    statuses: Vec<i32>,
    programs: BTreeMap<String, Result<(), String>>,
    outputs: BTreeMap<String, Vec<String>>,
    /// The lines since the last status.
    lines: Vec<String>,
    complaints: Vec<String>,
    panicked: bool,
    last: String,
}

/// A word that tells the lines of this run from all other lines.
pub(crate) fn nonce() -> String {
    format!("{:016x}", RandomState::new().hash_one(()))
}

impl Console {
    /// The console of a guest that has this `nonce`.
    pub(crate) fn new(nonce: &str) -> Self {
        Console {
            nonce: nonce.to_owned(),
            phase: Phase::Booting,
            statuses: Vec::new(),
            programs: BTreeMap::new(),
            outputs: BTreeMap::new(),
            lines: Vec::new(),
            complaints: Vec::new(),
            panicked: false,
            last: String::new(),
        }
    }

    /// Takes note of the next line.
    pub(crate) fn line(&mut self, line: &str) {
        let line = line.trim_end();
        if let Some(status) = Status::find(line, &self.nonce) {
            self.note(status);
            return;
        }
        let complaint = COMPLAINTS.iter().find(|(words, _)| line.contains(words));
        if let Some((_, complaint)) = complaint {
            let panic = *complaint == Complaint::Panic;
            if panic || self.phase != Phase::Booting {
                self.complaints.push(line.to_owned());
            }
            self.panicked |= panic;
        }
        if !line.is_empty() {
            line.clone_into(&mut self.last);
            self.lines.push(line.to_owned());
        }
    }

    fn note(&mut self, status: Status) {
        let lines = std::mem::take(&mut self.lines);
        if let Status::Passed(name) | Status::Failed(name, _) = &status {
            self.outputs.insert(name.clone(), lines);
        }
        match status {
            Status::Start => self.phase = Phase::Running,
            Status::Exit(status) => self.statuses.push(status),
            Status::Passed(name) => drop(self.programs.insert(name, Ok(()))),
            Status::Failed(name, why) => drop(self.programs.insert(name, Err(why))),
            Status::Done => self.phase = Phase::Done,
        }
    }

    /// How each program after the suite ended.
    pub(crate) fn programs(&self) -> &BTreeMap<String, Result<(), String>> {
        &self.programs
    }

    /// What the console printed while this program ran.
    pub(crate) fn output(&self, name: &str) -> &[String] {
        self.outputs.get(name).map_or(&[], Vec::as_slice)
    }

    /// How far the guest is.
    pub(crate) fn phase(&self) -> Phase {
        self.phase
    }

    /// Whether the kernel is dead.
    pub(crate) fn panicked(&self) -> bool {
        self.panicked
    }

    /// The last line that is not empty.
    pub(crate) fn last(&self) -> &str {
        &self.last
    }

    /// The conclusion of the run, given how the machine ended.
    pub(crate) fn conclusion(&self, end: End) -> Conclusion {
        let hung = end == End::Hung;
        match self.phase {
            _ if end == End::Interrupted => Conclusion::Interrupted,
            _ if self.phase != Phase::Booting && !self.complaints.is_empty() => {
                Conclusion::Kernel(self.complaints.clone())
            }
            Phase::Booting => Conclusion::NotStarted {
                hung,
                complaint: self.complaints.first().cloned(),
            },
            Phase::Running if hung => Conclusion::Hung,
            Phase::Running => {
                Conclusion::Kernel(vec!["the guest went down before it was done".into()])
            }
            Phase::Done => match self.statuses.iter().copied().find(|&status| status != 0) {
                None if self.statuses.is_empty() => Conclusion::Failed(-1),
                None => Conclusion::Passed,
                Some(status) => Conclusion::Failed(status),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn conclusion_of(lines: &[&str], hung: bool) -> Conclusion {
        let mut console = Console::new("4f2a");
        for line in lines {
            console.line(line);
        }
        console.conclusion(if hung { End::Hung } else { End::Down })
    }

    #[test]
    fn a_run_whose_programs_all_end_with_0_has_passed() {
        let lines = [
            "kqx-vm 4f2a start",
            "kqx-vm 4f2a exit 0",
            "kqx-vm 4f2a done",
        ];
        assert_eq!(conclusion_of(&lines, false).code(), 0);
    }

    #[test]
    fn a_run_with_one_program_that_ends_otherwise_has_failed() {
        let lines = [
            "kqx-vm 4f2a start",
            "kqx-vm 4f2a exit 0",
            "kqx-vm 4f2a exit 3",
            "kqx-vm 4f2a done",
        ];
        assert_eq!(conclusion_of(&lines, false), Conclusion::Failed(3));
        assert_eq!(conclusion_of(&lines, false).code(), 1);
    }

    #[test]
    fn a_run_without_any_program_has_failed() {
        let lines = ["kqx-vm 4f2a start", "kqx-vm 4f2a done"];
        assert_eq!(conclusion_of(&lines, false).code(), 1);
    }

    #[test]
    fn a_panic_outweighs_whatever_the_program_said() {
        for words in [
            "panic: mutex not owned",
            "Fatal trap 12: page fault while in kernel mode",
        ] {
            let lines = [
                "kqx-vm 4f2a start",
                "kqx-vm 4f2a exit 0",
                words,
                "kqx-vm 4f2a done",
            ];
            assert_eq!(conclusion_of(&lines, false).code(), 255, "{words}");
        }
    }

    #[test]
    fn a_reversal_or_a_leak_after_the_start_gives_255() {
        for words in [
            "lock order reversal:",
            "Sleeping on \"kqx\" with the following non-sleepable locks held:",
            "Warning: memory type kqx leaked memory on destroy (1 allocations, 64 bytes leaked).",
            "Freed UMA keg (kqx) was not empty (3 items).  Lost 1 pages of memory.",
        ] {
            let lines = [
                "kqx-vm 4f2a start",
                words,
                "kqx-vm 4f2a exit 0",
                "kqx-vm 4f2a done",
            ];
            assert_eq!(
                conclusion_of(&lines, false),
                Conclusion::Kernel(vec![words.to_owned()])
            );
        }
    }

    #[test]
    fn a_reversal_at_boot_is_the_kernels_own_affair() {
        let lines = [
            "lock order reversal:",
            "kqx-vm 4f2a start",
            "kqx-vm 4f2a exit 0",
            "kqx-vm 4f2a done",
        ];
        assert_eq!(conclusion_of(&lines, false), Conclusion::Passed);
    }

    #[test]
    fn a_boot_that_panics_is_reported_as_that() {
        let lines = ["---<<BOOT>>---", "panic: TSC not initialized"];
        let conclusion = conclusion_of(&lines, false);
        assert_eq!(conclusion.code(), 255);
        assert!(
            conclusion
                .to_string()
                .contains("before the tests started: panic: TSC"),
            "{conclusion}"
        );
    }

    #[test]
    fn a_boot_without_a_root_is_reported_as_that() {
        let conclusion = conclusion_of(&["Manual root filesystem specification:"], true);
        assert!(
            conclusion.to_string().starts_with("THE BOOT DIED"),
            "{conclusion}"
        );
    }

    #[test]
    fn the_limit_gives_124_before_and_after_the_start() {
        assert_eq!(conclusion_of(&["---<<BOOT>>---"], true).code(), 124);
        assert_eq!(conclusion_of(&["kqx-vm 4f2a start"], true).code(), 124);
    }

    #[test]
    fn a_guest_that_goes_down_silently_gives_255() {
        assert_eq!(
            conclusion_of(&["kqx-vm 4f2a start", "kqx-vm 4f2a exit 0"], false).code(),
            255
        );
    }

    #[test]
    fn a_line_with_another_nonce_counts_for_nothing() {
        let lines = [
            "kqx-vm 4f2a start",
            "kqx-vm 0000 exit 0",
            "kqx-vm 0000 done",
        ];
        assert_eq!(conclusion_of(&lines, true).code(), 124);
    }

    #[test]
    fn what_is_said_of_a_program_is_kept_under_its_name() {
        let mut console = Console::new("4f2a");
        console.line("kqx-vm 4f2a passed program.a");
        console.line("kqx-vm 4f2a failed program.b signal: 11\r");
        assert_eq!(console.programs()["program.a"], Ok(()));
        assert_eq!(console.programs()["program.b"], Err("signal: 11".into()));
    }

    #[test]
    fn a_status_is_found_behind_what_the_kernel_wrote_into_its_line() {
        let lines = [
            "uhub0: 4 portkqx-vm 4f2a start",
            "kqx-vm 4f2a exit 0\r",
            "kqx-vm 4f2a done",
        ];
        assert_eq!(conclusion_of(&lines, false), Conclusion::Passed);
    }
}
