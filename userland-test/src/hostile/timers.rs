// SPDX-License-Identifier: BSD-2-Clause

//! Users that take every timer they can get. The harness checks after every load that all
//! timers come back.

use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;

use kqx::abi::{KQX_TIMER, ident};
use kqx::event::Kevent;

use crate::ensure;
use crate::hostile::users::{BOB, EVE, MALLORY};
use crate::outcome::{Failure, Outcome};
use crate::stress::Deadline;
use crate::system::{Body, Errno, System};
use crate::tools::change::{SEC, oneshot};
use crate::tools::queue::Queue;

/// Runs a body in a process of a thief.
type Thief<'a> = &'a (dyn Fn(Body<'_>) -> Outcome + Sync);

/// EV_ADD of a timer that does not expire.
fn long_timer(id: u64) -> Kevent {
    Kevent {
        ident: ident(KQX_TIMER, id),
        ..oneshot(3600 * SEC)
    }
}

/// Takes timers until a timer is refused. Returns how many were taken.
fn take_all(queue: &Queue) -> Result<u64, Failure> {
    let mut taken = 0;
    loop {
        match queue.apply(long_timer(taken)) {
            Ok(()) => taken += 1,
            Err(Errno::ENOMEM) => return Ok(taken),
            Err(errno) => return Err(errno.into()),
        }
    }
}

/// The thieves take all timers that they can get, one thief after the other. They keep the
/// timers while `body` runs. `body` gets the total number.
fn plundered(
    sys: &dyn System,
    thieves: &[Thief<'_>],
    body: impl Fn(u64) -> Outcome + Sync,
) -> Outcome {
    let [stage, taken, over, ..] = sys.shared_memory()?;
    let wait_for = |until| {
        while stage.load(SeqCst) != until && over.load(SeqCst) == 0 {
            sys.pass(Duration::from_millis(1));
        }
    };
    let all = thieves.len() as u64;
    let plunder = |number| {
        wait_for(number);
        let queue = Queue::new(sys)?;
        taken.fetch_add(take_all(&queue)?, SeqCst);
        stage.store(number + 1, SeqCst);
        wait_for(u64::MAX);
        Ok(())
    };
    let ending_all = |outcome: Outcome| {
        if outcome.is_err() {
            over.store(1, SeqCst);
        }
        outcome
    };
    let thieves: Vec<_> = thieves
        .iter()
        .zip(0..)
        .map(|(thief, number)| move || ending_all(thief(&|| plunder(number))))
        .collect();
    let last = || {
        wait_for(all);
        let outcome = if over.load(SeqCst) == 0 {
            body(taken.load(SeqCst))
        } else {
            // The failure of a thief is the outcome.
            Ok(())
        };
        over.store(1, SeqCst);
        outcome
    };
    let mut bodies: Vec<Body<'_>> = thieves.iter().map(|thief| thief as Body<'_>).collect();
    bodies.push(&last);
    sys.parallel(&bodies)
}

fn as_user(sys: &dyn System, uid: u32, body: Body<'_>) -> Outcome {
    sys.in_process(&|| {
        sys.set_kqueue_limit(None)?;
        sys.setuid(uid)?;
        body()
    })
}

/// Checks that the process, which is of user `who`, can add a timer.
fn gets_one(sys: &dyn System, who: &str) -> Outcome {
    let queue = Queue::new(sys)?;
    let added = queue.apply(long_timer(1));
    ensure!(added.is_ok(), "{who} gets no timer: {added:?}");
    Ok(())
}

/// While `thieves` have all timers that they can get, root gets a timer. With one thief,
/// another user gets a timer too.
fn leave_some(sys: &dyn System, what: &str, thieves: &[Thief<'_>]) -> Outcome {
    let timer_max = sys.sysctl("kern.kqx.timer_max")?;
    plundered(sys, thieves, |taken| {
        println!("# {what}: {taken} of {timer_max} timers taken");
        if let [_] = thieves {
            as_user(sys, BOB, &|| gets_one(sys, "another user"))?;
        }
        gets_one(sys, "root")
    })
}

pub(super) fn users(sys: &dyn System, _deadline: Deadline) -> Outcome {
    let mallory = |body: Body<'_>| as_user(sys, MALLORY, body);
    let eve = |body: Body<'_>| as_user(sys, EVE, body);
    leave_some(sys, "hostile.timers: one user", &[&mallory])?;
    leave_some(sys, "hostile.timers: two users", &[&mallory, &eve])
}

pub(super) fn jail(sys: &dyn System, _deadline: Deadline) -> Outcome {
    let jail = |body: Body<'_>| sys.in_jail(body);
    leave_some(sys, "hostile.jail", &[&jail])
}
