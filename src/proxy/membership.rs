//! Who is in the ring and where they are: written by the health checks, read by every worker once a batch.

use super::Node;
use super::ring::Ring;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// What a worker forwards by.
#[derive(Debug, PartialEq, Eq)]
pub struct View {
    /// Whose a name is.
    pub ring: Ring,
    /// Where each node is, by its number; `None` while its name leads nowhere.
    pub addresses: Vec<Option<SocketAddr>>,
}

/// The nodes, those in the ring, and their addresses.
#[derive(Debug)]
pub struct Membership {
    nodes: Vec<Node>,
    /// Raised with each change. Release and Acquire: who sees the number sees the view, though the lock would
    /// do it too.
    generation: AtomicU64,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// Those in the ring, in the order they came: a node that returns is the last.
    members: Vec<usize>,
    addresses: Vec<Option<SocketAddr>>,
    view: Arc<View>,
}

impl Membership {
    /// Every node is in the ring, and none has an address yet.
    pub fn new(nodes: Vec<Node>) -> Self {
        let members: Vec<_> = (0..nodes.len()).collect();
        let addresses = vec![None; nodes.len()];
        let view = view(&nodes, &members, &addresses);
        Self {
            nodes,
            generation: AtomicU64::new(1),
            state: Mutex::new(State {
                members,
                addresses,
                view,
            }),
        }
    }

    /// Every node, in or out.
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// The view, when it is not that of generation `known`, which is brought up to date; 0 knows none.
    #[inline]
    pub fn news(&self, known: &mut u64) -> Option<Arc<View>> {
        let generation = self.generation.load(Ordering::Acquire);
        if generation == *known {
            return None;
        }
        *known = generation;
        Some(self.state().view.clone())
    }

    /// The numbers of the nodes in the ring, in the order they came.
    pub fn members(&self) -> Vec<usize> {
        self.state().members.clone()
    }

    /// Where each node is.
    pub fn addresses(&self) -> Vec<Option<SocketAddr>> {
        self.state().addresses.clone()
    }

    /// Takes a node out of the ring.
    pub fn remove(&self, node: usize) {
        self.change(|state| state.members.retain(|member| *member != node));
    }

    /// Takes a node into the ring again.
    pub fn add(&self, node: usize) {
        self.change(|state| {
            if !state.members.contains(&node) {
                state.members.push(node);
            }
        });
    }

    /// Says where a node is. Returns whether that is news.
    pub fn locate(&self, node: usize, address: SocketAddr) -> bool {
        let is_news = self.state().addresses[node] != Some(address);
        if is_news {
            self.change(|state| state.addresses[node] = Some(address));
        }
        is_news
    }

    fn change(&self, how: impl FnOnce(&mut State)) {
        let mut state = self.state();
        how(&mut state);
        state.view = view(&self.nodes, &state.members, &state.addresses);
        self.generation.fetch_add(1, Ordering::Release);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn view(nodes: &[Node], members: &[usize], addresses: &[Option<SocketAddr>]) -> Arc<View> {
    let labelled = members.iter().map(|node| (*node, &*nodes[*node].label));
    Arc::new(View {
        ring: Ring::new(labelled),
        addresses: addresses.to_vec(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nodes() -> Vec<Node> {
        let node = |port| Node {
            label: format!("h:{port}"),
            host: "h".into(),
            port,
            admin_port: port + 1,
        };
        [8127, 8129, 8131].map(node).into()
    }

    #[test]
    fn a_change_is_news_once_and_the_last_to_come_is_the_last() {
        let membership = Membership::new(nodes());
        let mut known = 0;
        let all = membership.news(&mut known).expect("the first view");
        assert_eq!(membership.news(&mut known), None);
        membership.remove(0);
        let without = membership.news(&mut known).expect("a change");
        assert_ne!(without, all);
        assert_eq!(membership.members(), [1, 2]);
        membership.add(0);
        membership.add(0);
        assert_eq!(membership.members(), [1, 2, 0]);
        let again = membership.news(&mut known).expect("a change");
        assert_eq!(again, all, "the order does not show in the ring");
    }

    #[test]
    fn an_address_is_news_when_it_is_another_one() {
        let membership = Membership::new(nodes());
        let mut known = 0;
        membership.news(&mut known);
        let at = |port: u16| SocketAddr::from(([127, 0, 0, 1], port));
        assert!(membership.locate(1, at(1)));
        assert!(!membership.locate(1, at(1)));
        assert!(membership.locate(1, at(2)));
        let view = membership.news(&mut known).expect("a change");
        assert_eq!(view.addresses, [None, Some(at(2)), None]);
        assert_eq!(membership.addresses(), view.addresses);
    }
}
