// SPDX-License-Identifier: BSD-2-Clause

//! Statistics: what kqx relies on in counter(9). The kernel's code is not compiled here: the test
//! has a mirror of it.
#![cfg(loom)]

use std::array::from_fn;

use loom::sync::Arc;
use loom::sync::atomic::{AtomicBool, AtomicI64, Ordering::Relaxed};
use loom::thread;

/// A counter: a number for each CPU. A thread of this test is a CPU.
struct Counter([AtomicI64; 2]);

impl Counter {
    /// `add qword ptr gs:[...], rax`, without `lock`: no interrupt splits the instruction, but to
    /// another CPU the instruction is a load and a store.
    fn add(&self, number: usize, n: i64) {
        let before = self.0[number].load(Relaxed);
        self.0[number].store(before + n, Relaxed);
    }

    /// counter_u64_fetch: a plain load of each number.
    fn fetch(&self) -> i64 {
        self.0.iter().map(|number| number.load(Relaxed)).sum()
    }
}

/// Two CPUs add and take away, each from the number that `number_of` names.
fn total(number_of: fn(usize) -> usize) {
    loom::model(move || {
        let counter = Arc::new(Counter(from_fn(|_| AtomicI64::new(0))));
        let cpus = [(0, 2), (1, -1)].map(|(cpu, n)| {
            let counter = counter.clone();
            thread::spawn(move || {
                // Loom tries no other order of a thread whose first step is a load (tokio-rs/loom,
                // issue 392).
                AtomicBool::new(false).store(true, Relaxed);
                counter.add(number_of(cpu), n);
                counter.add(number_of(cpu), n);
            })
        });
        for cpu in cpus {
            cpu.join().expect("no panic");
        }
        assert_eq!(counter.fetch(), 2, "an addition is lost");
    });
}

#[test]
fn the_sum_of_what_the_cpus_have_counted_is_exact() {
    total(|cpu| cpu);
}

#[test]
#[should_panic(expected = "an addition is lost")]
fn one_number_for_two_cpus_is_a_mistake() {
    total(|_| 0);
}
