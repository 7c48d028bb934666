// SPDX-License-Identifier: BSD-2-Clause

//! What several tests use.

pub mod object;
