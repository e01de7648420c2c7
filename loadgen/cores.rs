//! Which core the receiver runs on, and which the sender.

use anyhow::{Context as _, bail};
use clap::Args;
use core_affinity::CoreId;

/// Where to run; cores as the kernel numbers them.
#[derive(Debug, Clone, Copy, Args)]
pub(crate) struct Placement {
    /// Core of the receiver [default: the first there is].
    #[arg(long, value_name = "CORE")]
    receiver_core: Option<usize>,

    /// Core of the sender [default: the last there is].
    #[arg(long, value_name = "CORE")]
    sender_core: Option<usize>,
}

/// The two cores.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Cores {
    pub(crate) receiver: CoreId,
    pub(crate) sender: CoreId,
}

impl Cores {
    /// Whether the two compete for one core: what is measured says little then.
    pub(crate) fn are_one(self) -> bool {
        self.receiver == self.sender
    }
}

/// The first cores of those this process may use: where the server's workers pin themselves.
pub(crate) fn first(count: usize) -> Vec<CoreId> {
    let mut cores = core_affinity::get_core_ids().unwrap_or_default();
    cores.truncate(count);
    cores
}

impl Placement {
    /// The cores asked for, of those this process may use.
    pub(crate) fn cores(self) -> anyhow::Result<Cores> {
        let cores = core_affinity::get_core_ids().unwrap_or_default();
        self.choose(&cores)
    }

    fn choose(self, cores: &[CoreId]) -> anyhow::Result<Cores> {
        let (Some(first), Some(last)) = (cores.first(), cores.last()) else {
            bail!("the system does not say which cores this process may use");
        };
        let find = |asked: Option<usize>, default: &CoreId| {
            let Some(asked) = asked else {
                return Ok(*default);
            };
            let found = cores.iter().find(|core| core.id == asked);
            found.copied().with_context(|| {
                let all: Vec<_> = cores.iter().map(|core| core.id.to_string()).collect();
                format!("no core {asked} to run on; there are {}", all.join(", "))
            })
        };
        Ok(Cores {
            receiver: find(self.receiver_core, first)?,
            sender: find(self.sender_core, last)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_get_a_core_and_one_of_their_own_where_there_are_two() {
        let cores = [2, 5, 7].map(|id| CoreId { id });
        let choose = |receiver_core, sender_core, of: &[CoreId]| {
            let placement = Placement {
                receiver_core,
                sender_core,
            };
            let chosen = placement.choose(of);
            chosen.map(|chosen| [chosen.receiver.id, chosen.sender.id])
        };
        assert_eq!(choose(None, None, &cores).unwrap(), [2, 7]);
        assert_eq!(choose(Some(7), Some(5), &cores).unwrap(), [7, 5]);
        assert_eq!(choose(None, None, &cores[..1]).unwrap(), [2, 2]);
        let error = choose(Some(3), None, &cores).unwrap_err().to_string();
        assert_eq!(error, "no core 3 to run on; there are 2, 5, 7");
        assert!(choose(None, None, &[]).is_err());
    }
}
