// SPDX-License-Identifier: BSD-2-Clause

//! A program with the library preloaded, without the module.
#![cfg(target_os = "freebsd")]

use kqx::event::{EV_ADD, EVFILT_USER, Kevent, NOTE_TRIGGER};
use kqx::{Event, Kqueue};

#[test]
#[ignore = "needs FreeBSD without kqx, and the library preloaded"]
fn without_the_module_a_program_uses_the_kernel_s_filters() {
    let queue = Kqueue::new().unwrap();
    let add = Kevent {
        ident: 7,
        filter: EVFILT_USER,
        flags: EV_ADD,
        ..Kevent::default()
    };
    let trigger = Kevent {
        flags: 0,
        fflags: NOTE_TRIGGER,
        data: 3,
        ..add
    };
    queue.kevent(&[add, trigger], &mut [], None).unwrap();
    let event = queue.wait(None).unwrap();
    assert!(matches!(event, Some(Event::Other(event)) if event.data == 3 && event.ident == 7));
}
