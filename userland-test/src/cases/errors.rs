// SPDX-License-Identifier: BSD-2-Clause

//! Bad input: the errno, the state that stays, and the report of a refused change.

mod counter;
mod kqueue;
mod member;
mod refused;
mod timer;
