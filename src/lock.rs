//! Locks that a panic does not poison.

use std::sync::{LockResult, PoisonError};

/// What a lock guards, also after a panic of a thread that held it: each one leaves nothing half-done.
pub fn unpoisoned<T>(locked: LockResult<T>) -> T {
    locked.unwrap_or_else(PoisonError::into_inner)
}
