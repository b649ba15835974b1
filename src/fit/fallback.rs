//! A device that may be lost, and the CPU behind it.
//!
//! In: a [`Backend`]. Out: one that never fails for the device's sake: from the call on in which the device is lost or out
//! of memory the CPU searches, and the reason can be asked for.

use super::cpu::Cpu;
use super::problem::Problem;
use super::replicates::Replication;
use super::{Backend, Proposals, Replicated};
use crate::error::{Error, Result};
use std::sync::{Arc, OnceLock};

/// The device, until it is lost.
pub struct Fallback {
    device: Arc<dyn Backend + Send + Sync>,
    lost: OnceLock<String>,
}

impl Fallback {
    /// `device` with the CPU behind it.
    pub fn behind(device: Arc<dyn Backend + Send + Sync>) -> Fallback {
        Fallback { device, lost: OnceLock::new() }
    }
}

impl Backend for Fallback {
    fn is_host(&self) -> bool {
        self.lost.get().is_some()
    }

    fn lost(&self) -> Option<&str> {
        self.lost.get().map(String::as_str)
    }

    fn propose(&self, problem: &Problem) -> Result<Proposals> {
        if !self.is_host() {
            match self.device.propose(problem) {
                // Others may have found out first, with another of its last words.
                Err(Error::Device(reason)) => drop(self.lost.set(reason)),
                other => return other,
            }
        }
        Cpu.propose(problem)
    }

    fn replicate(&self, replication: &Replication) -> Result<Option<Replicated>> {
        if self.is_host() {
            return Ok(None);
        }
        match self.device.replicate(replication) {
            Err(Error::Device(reason)) => {
                drop(self.lost.set(reason));
                Ok(None)
            }
            other => other,
        }
    }
}
