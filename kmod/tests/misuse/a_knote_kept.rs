//! A knote does not outlive its callback.

use std::cell::RefCell;

use kqx_kmod::kernel::knote::{Active, Knote};

thread_local! {
    static KEPT: RefCell<Option<Knote<'static, Active>>> = const { RefCell::new(None) };
}

fn f_event(kn: Knote<'_, Active>) -> bool {
    KEPT.with(|kept| *kept.borrow_mut() = Some(kn));
    false
}

fn main() {}
