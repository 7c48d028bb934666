// SPDX-License-Identifier: BSD-2-Clause

//! Bad input: which errno, what is left behind, how a refused change is reported.

mod counter;
mod kqueue;
mod member;
mod refused;
mod timer;
