// SPDX-License-Identifier: BSD-2-Clause

//! Registrations that share a state: what the module does where the kernel is in its way.

use std::time::Duration;

use kqx::abi;
use kqx::event::{EV_ADD, Kevent, NOTE_TRIGGER};
use kqx_kmod::kqx_modevent;
use kqx_sim::{Config, Failure, Machine};

const WATCH: Kevent = Kevent {
    ident: abi::ident(abi::KQX_GATE, 1),
    filter: abi::EVFILT_KQX,
    flags: EV_ADD,
    fflags: 0,
    data: 0,
    udata: 0,
    ext: [0; 4],
};

const TRIGGER: Kevent = Kevent {
    flags: 0,
    fflags: NOTE_TRIGGER,
    ..WATCH
};

/// Lets time pass until the module has run that many callouts.
fn advance_to_callout(machine: &Machine, count: i64) {
    let run = || machine.init().sysctl("kern.kqx.stats.callouts");
    for _ in 0..100_000 {
        if run() == Ok(count) {
            return;
        }
        machine.advance(Duration::from_micros(10));
    }
    panic!("{:?} callouts in a second, not {count}", run());
}

#[test]
fn a_retry_comes_again_later_where_the_mutex_is_held() {
    // A later kernel has kern.proc.kq, whose dump keeps a knote in flux.
    let config = Config {
        later: true,
        ..Config::default()
    };
    let machine = Machine::native(config, kqx_modevent).expect("loaded");
    let process = machine.process(1001);
    let [missed, other] = [(); 2].map(|()| process.kqueue().expect("a kqueue"));
    for kq in [missed, other] {
        process.kevent(kq, &[WATCH], &mut [], None).expect("added");
    }
    let events = |kq| process.kevent(kq, &[], &mut [WATCH], Some(Duration::ZERO));
    let trigger = |_: &_| {
        let triggered = process.kevent(other, &[TRIGGER], &mut [], None);
        triggered.expect("triggered");
    };
    process.knotes(missed, trigger).expect("kern.proc.kq");
    assert_eq!((events(other), events(missed)), (Ok(1), Ok(0)));
    assert_eq!(machine.callouts(), 1, "the retry");
    machine.fail(Failure::Trylock, 1);
    advance_to_callout(&machine, 1);
    assert_eq!((machine.callouts(), events(missed)), (1, Ok(0)));
    advance_to_callout(&machine, 2);
    assert_eq!((machine.callouts(), events(missed)), (0, Ok(1)));
    process.exit();
}
