// SPDX-License-Identifier: BSD-2-Clause

//! The ordinary users of a machine.

/// Two users that mean harm.
pub const MALLORY: u32 = 1001;
pub const EVE: u32 = 1002;
/// A user that only wants to work.
pub const BOB: u32 = 1003;
