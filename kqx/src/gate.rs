// SPDX-License-Identifier: BSD-2-Clause

//! A gate in its typed form and as a `struct kevent`. This file makes no system call.

use crate::Error;
use crate::abi::{self, KQX_GATE, NOTE_KQX_ONE};
use crate::change::change;
use crate::event::{EV_ADD, EV_DISABLE, EV_DISPATCH, EV_ONESHOT, Kevent};

/// A watcher of a gate to add to a kqueue: [`Gate::all`](crate::Gate::all) and
/// [`Gate::one`](crate::Gate::one).
///
/// ```no_run
/// # let kq = kqx::Kqueue::new()?;
/// let gate = kqx::Gate::one(1).dispatch().udata(42).add(&kq)?;
/// # Ok::<(), kqx::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "a builder does nothing until it is added"]
pub struct GateBuilder {
    id: u64,
    one: bool,
    /// EV_ONESHOT, EV_DISPATCH and EV_DISABLE.
    ev: u16,
    udata: usize,
}

impl GateBuilder {
    pub(crate) fn new(id: u64, one: bool) -> Self {
        GateBuilder {
            id,
            one,
            ev: 0,
            udata: 0,
        }
    }

    /// Delivers once, and then deletes the watcher (EV_ONESHOT).
    ///
    /// ```no_run
    /// # let kq = kqx::Kqueue::new()?;
    /// let gate = kqx::Gate::all(1).once().add(&kq)?;
    /// # Ok::<(), kqx::Error>(())
    /// ```
    pub fn once(mut self) -> Self {
        self.ev |= EV_ONESHOT;
        self
    }

    /// Disables the watcher at each delivery (EV_DISPATCH), until
    /// [`Gate::enable`](crate::Gate::enable).
    ///
    /// ```no_run
    /// # let kq = kqx::Kqueue::new()?;
    /// let gate = kqx::Gate::all(1).dispatch().add(&kq)?;
    /// # Ok::<(), kqx::Error>(())
    /// ```
    pub fn dispatch(mut self) -> Self {
        self.ev |= EV_DISPATCH;
        self
    }

    /// Adds the watcher disabled: for a registration that only triggers, or that is enabled
    /// later.
    ///
    /// ```no_run
    /// # let kq = kqx::Kqueue::new()?;
    /// let gate = kqx::Gate::all(1).disabled().add(&kq)?;
    /// # Ok::<(), kqx::Error>(())
    /// ```
    pub fn disabled(mut self) -> Self {
        self.ev |= EV_DISABLE;
        self
    }

    /// A value of the application, which comes back with each delivery.
    ///
    /// ```no_run
    /// # let kq = kqx::Kqueue::new()?;
    /// let gate = kqx::Gate::all(1).udata(42).add(&kq)?;
    /// # Ok::<(), kqx::Error>(())
    /// ```
    pub fn udata(mut self, udata: usize) -> Self {
        self.udata = udata;
        self
    }

    /// The change that adds the watcher, for kevent(2).
    ///
    /// # Errors
    /// [`Error::Invalid`] names the value that is out of its range.
    ///
    /// ```
    /// let change = kqx::Gate::one(7).kevent()?;
    /// assert_eq!(kqx::abi::id(change.ident), 7);
    /// # Ok::<(), kqx::Error>(())
    /// ```
    pub fn kevent(&self) -> Result<Kevent, Error> {
        Ok(Kevent {
            flags: EV_ADD | self.ev,
            fflags: if self.one { NOTE_KQX_ONE } else { 0 },
            udata: self.udata,
            ..change(KQX_GATE, self.id)?
        })
    }
}

/// A number of triggers as a value for `data`. The filter takes 0 as 1.
pub(crate) fn triggers(n: u64) -> Result<i64, Error> {
    match i32::try_from(n) {
        Ok(n @ 1..) => Ok(n.into()),
        _ => Err(Error::Invalid("triggers must be from 1 to i32::MAX")),
    }
}

/// A gate's delivery to one of its watchers.
///
/// ```no_run
/// # let kq = kqx::Kqueue::new()?;
/// if let Some(kqx::Event::Gate(event)) = kq.wait(None)? {
///     println!("{} triggers, {} watchers", event.triggers, event.watchers);
/// }
/// # Ok::<(), kqx::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GateEvent {
    /// The gate's id.
    pub id: u64,
    /// The triggers that the delivery takes: all since the watcher's last event, or 1 if a
    /// trigger wakes one watcher.
    pub triggers: u64,
    /// If a trigger wakes one watcher, the triggers that still wait at the gate because
    /// every watcher has a trigger already. Else 0.
    pub left: u64,
    /// How many watchers the gate has, with the disabled watchers.
    pub watchers: u64,
    /// A value of the application.
    pub udata: usize,
}

impl GateEvent {
    /// The delivery in `event`, which is of a KQX_GATE.
    pub(crate) fn decode(event: &Kevent) -> Self {
        let [left, watchers, ..] = event.ext;
        GateEvent {
            id: abi::id(event.ident),
            triggers: event.data.unsigned_abs(),
            left,
            watchers,
            udata: event.udata,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Gate;
    use crate::abi::{EVFILT_KQX, KQX_ID_MASK};

    #[test]
    fn a_watcher_says_whether_a_trigger_wakes_all_or_one() {
        for (builder, fflags) in [(Gate::all(7), 0), (Gate::one(7), NOTE_KQX_ONE)] {
            let change = builder.kevent().unwrap();
            assert_eq!(change.ident, 0x0300_0000_0000_0007);
            assert_eq!(change.filter, EVFILT_KQX);
            assert_eq!((change.flags, change.fflags), (EV_ADD, fflags));
            assert_eq!((change.data, change.ext), (0, [0; 4]));
        }
    }

    #[test]
    fn everything_a_builder_was_told_is_in_the_change() {
        let change = Gate::one(KQX_ID_MASK)
            .once()
            .dispatch()
            .disabled()
            .udata(42)
            .kevent()
            .unwrap();
        assert_eq!(abi::id(change.ident), KQX_ID_MASK);
        assert_eq!(change.flags, EV_ADD | EV_ONESHOT | EV_DISPATCH | EV_DISABLE);
        assert_eq!((change.fflags, change.udata), (NOTE_KQX_ONE, 42));
    }

    #[test]
    fn what_is_out_of_range_is_named_before_the_kernel_is_asked() {
        let wide = Gate::all(1 << 56).kevent().unwrap_err().to_string();
        assert!(wide.contains("56 bits"), "{wide}");
        for n in [0, 1 << 31, u64::MAX] {
            let error = triggers(n).unwrap_err().to_string();
            assert!(error.contains("from 1 to i32::MAX"), "{error}");
        }
    }

    #[test]
    fn a_delivery_is_read_field_by_field() {
        let event = GateEvent::decode(&Kevent {
            ident: abi::ident(KQX_GATE, 7),
            filter: EVFILT_KQX,
            flags: 0,
            fflags: NOTE_KQX_ONE,
            data: 1,
            udata: 42,
            ext: [5, 3, 1, 2],
        });
        let expected = GateEvent {
            id: 7,
            triggers: 1,
            left: 5,
            watchers: 3,
            udata: 42,
        };
        assert_eq!(event, expected);
    }
}
