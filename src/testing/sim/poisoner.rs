//! Puts toxics into the lines of a simulated run, changes them and takes them out, while bytes are on their way.

use super::book::Book;
use super::world::World;
use crate::runtime::Runtime;
use crate::testing::faults::{Fault, Faults, New, Toxic};
use crate::tunnel::Detour;
use crate::{Endpoint, Side};
use std::sync::Arc;
use std::time::Duration;

const PROXY: &str = "simulated";

/// In every fourth run, by the seed itself: the others are the same with and without this.
pub(super) fn is_at_work(world: &World) -> bool {
    world.seed() % 4 == 3
}

/// Starts to poison; gives the way that the proxy's connections are to take.
pub(super) async fn start(
    world: &World,
    book: &Book,
    runtime: Arc<dyn Runtime>,
) -> Option<Arc<dyn Detour>> {
    let faults = Faults::start_in(world.seed(), runtime);
    let place = |port| Endpoint::Ip(([127, 0, 0, 1], port).into());
    let new = New {
        name: PROXY.into(),
        listen: place(2),
        backend: place(3),
        enabled: false, // the owner of the run has a proxy of its own
    };
    faults.create(new).await.ok()?;
    let detour = faults.detour(PROXY).await?;
    // Half of these runs lose nothing, so that every other promise holds as it does without toxics.
    let lossy = world.chance(50);
    if lossy {
        book.is_lossy();
    }
    world.start("poisoner", poison(world.clone(), book.clone(), faults, lossy));
    Some(detour)
}

async fn poison(world: World, book: Book, faults: Faults, lossy: bool) {
    let mut names = Vec::new();
    for number in 0..2 + world.roll(12) {
        let pause = world.while_up_to(Duration::from_secs(5));
        // Some stand there from the start.
        if number > 1 {
            world.sleep(pause).await;
        }
        let chosen = (!names.is_empty()).then(|| world.roll(names.len()));
        let done = match (world.roll(10), chosen) {
            (0..3, Some(chosen)) => {
                world.count("toxic removed");
                let name: String = names.swap_remove(chosen);
                faults.remove(PROXY, &name).await
            }
            (3..5, Some(chosen)) => {
                world.count("toxic changed");
                let of_it = world.clone();
                let edit = move |old: &Toxic| {
                    let new = toxic(&of_it, false);
                    let same = new.fault.name() == old.fault.name();
                    let fault = if same { new.fault } else { old.fault };
                    Ok(Toxic { fault, toxicity: new.toxicity, ..old.clone() })
                };
                faults.edit(PROXY, &names[chosen], edit).await
            }
            _ => {
                let toxic = toxic(&world, lossy).named(format!("toxic-{number}"));
                world.count(&format!("fault: toxic {}", toxic.fault.name()));
                names.push(toxic.name.clone());
                faults.add(PROXY, toxic).await
            }
        };
        if let Err(refused) = done {
            return book.breaks(format!("the faults refuse what is right: {refused}"));
        }
    }
    // They work on until the last connection of the run has ended.
    world.sleep(Duration::from_secs(48 * 3600)).await;
}

fn toxic(world: &World, lossy: bool) -> Toxic {
    let while_up_to = |seconds| world.while_up_to(Duration::from_secs(seconds));
    let fault = match world.roll(if lossy { 7 } else { 4 }) {
        0 => Fault::Latency { latency: while_up_to(3), jitter: while_up_to(2) },
        1 => Fault::Bandwidth { rate: 1 + world.roll(20) as u64 },
        2 => Fault::SlowClose { delay: while_up_to(5) },
        3 => Fault::Slicer {
            average_size: 1 + world.roll(100) as u64,
            size_variation: world.roll(50) as u64,
            delay: world.while_up_to(Duration::from_millis(2)),
        },
        4 => Fault::Timeout { timeout: while_up_to(5) },
        5 => Fault::ResetPeer { timeout: while_up_to(5) },
        _ => Fault::LimitData { bytes: world.roll(3000) as u64 },
    };
    let side = if world.chance(50) { Side::Client } else { Side::Backend };
    let toxic = Toxic::new(fault).towards(side).toxicity(world.roll(5) as f64 / 4.0);
    let toxic = if world.chance(30) { toxic.after_bytes(world.roll(2000) as u64) } else { toxic };
    if world.chance(10) { toxic.on_connection(1 + world.roll(30) as u64) } else { toxic }
}
