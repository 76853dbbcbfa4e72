//! Clusters of one, two and three nodes whose clocks jump, drift, stop or are in another time zone, under simulated
//! time.

use conclave_clock::{
    AGREE, ClockAnswer, ClockVerdict, ClusterReading, Discipline, HOLD, Micros, SECOND, Standing, WALL_BOUND,
};

const START: Micros = 1_800_000_000 * SECOND;
const DAY: Micros = 86_400 * SECOND;
/// The tolerance of a test beside the bound: a round trip and a poll.
const SLACK: Micros = SECOND / 4;

/// A machine with its clocks and their faults.
struct Machine {
    clocks: Discipline,
    verdict: Option<ClockVerdict>,
    /// Wall clock minus true time.
    wall_off: Micros,
    /// The time at which the wall clock has stopped, if it has.
    wall_stopped: Option<Micros>,
    /// Parts per million that both clocks run fast.
    drift_ppm: i64,
    /// Time that the steady clock has lost, for instance in a pause that no clock noticed.
    steady_lost: Micros,
    up: bool,
}

struct World {
    now: Micros,
    random: u64,
    machines: Vec<Machine>,
    log_time: Micros,
    refused: usize,
    stamped: usize,
}

impl World {
    fn new(nodes: u64, seed: u64) -> Self {
        let machine = |node| Machine {
            clocks: Discipline::new(node),
            verdict: None,
            wall_off: 0,
            wall_stopped: None,
            drift_ppm: 0,
            steady_lost: 0,
            up: true,
        };
        let machines = (0..nodes).map(machine).collect();
        Self {
            now: SECOND,
            random: seed.wrapping_mul(2).wrapping_add(1),
            machines,
            log_time: 0,
            refused: 0,
            stamped: 0,
        }
    }

    /// A cluster that has found its time; refusals until then are not counted.
    fn started(nodes: u64, seed: u64) -> Self {
        let mut world = Self::new(nodes, seed);
        world.run(5);
        assert!(world.all_agree(), "{nodes} nodes agree after their start");
        world.refused = 0;
        world
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.random =
            self.random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.random >> 33) % limit
    }

    fn ran(&self, node: usize, at: Micros) -> Micros {
        at + at / 1_000_000 * self.machines[node].drift_ppm
    }

    fn steady(&self, node: usize, at: Micros) -> Micros {
        self.ran(node, at) - self.machines[node].steady_lost
    }

    fn wall(&self, node: usize, at: Micros) -> Micros {
        self.machines[node].wall_stopped.unwrap_or(START + self.ran(node, at) + self.machines[node].wall_off)
    }

    fn truth(&self) -> Micros {
        START + self.now
    }

    fn cluster(&self, node: usize) -> Option<Micros> {
        self.machines[node].clocks.cluster_at(self.steady(node, self.now))
    }

    /// Every running node polls every other one, then evaluates; the first one that may then stamps an entry.
    fn poll(&mut self) {
        let voters: Vec<u64> = (0..self.machines.len() as u64).collect();
        for node in 0..self.machines.len() {
            for peer in 0..self.machines.len() {
                if node == peer || !self.machines[node].up || !self.machines[peer].up {
                    continue;
                }
                let (there, back) = (self.below(10_000).cast_signed(), self.below(10_000).cast_signed());
                let at = self.now + there;
                let cluster = self.machines[peer].clocks.cluster_at(self.steady(peer, at));
                let steps = self.machines[peer].clocks.steps();
                let cluster = cluster.map(|at| ClusterReading { at, steps });
                let answer = ClockAnswer { wall: self.wall(peer, at), cluster };
                let (sent, received) = (self.steady(node, self.now), self.steady(node, at + back));
                self.machines[node].clocks.observe(peer as u64, answer, sent, received);
            }
        }
        self.now += 50_000;
        for node in 0..self.machines.len() {
            if self.machines[node].up {
                let (steady, wall) = (self.steady(node, self.now), self.wall(node, self.now));
                self.machines[node].verdict = Some(self.machines[node].clocks.look(steady, wall, &voters));
            }
        }
        self.now += SECOND - 50_000;
        self.stamp();
    }

    fn stamp(&mut self) {
        let leader = self.machines.iter().position(|machine| machine.up);
        let Some(leader) = leader else { return };
        if self.machines[leader].verdict.is_some_and(|verdict| verdict.standing == Standing::Agreed) {
            self.log_time = self.log_time.max(self.cluster(leader).unwrap());
            self.stamped += 1;
        } else {
            self.refused += 1;
        }
    }

    fn run(&mut self, seconds: u64) {
        (0..seconds).for_each(|_| self.poll());
    }

    /// The largest difference between a running node's cluster clock and the true time.
    fn worst(&self) -> Micros {
        let running = (0..self.machines.len()).filter(|node| self.machines[*node].up);
        running.map(|node| (self.cluster(node).unwrap() - self.truth()).abs()).max().unwrap()
    }

    fn all_agree(&self) -> bool {
        let agreed = |machine: &Machine| machine.verdict.is_some_and(|it| it.standing == Standing::Agreed);
        self.machines.iter().filter(|machine| machine.up).all(agreed)
    }

    fn says_off(&self, node: usize) -> bool {
        self.machines[node].verdict.is_some_and(|verdict| verdict.is_wall_off)
    }
}

/// One, two and three nodes, with several seeds each.
fn everywhere(story: impl Fn(&mut World, usize)) {
    for nodes in 1..=3 {
        for seed in 0..20 {
            let mut world = World::started(nodes, seed * 3 + nodes);
            story(&mut world, usize::try_from(nodes).unwrap());
        }
    }
}

#[test]
fn a_wall_clock_that_leaps_for_seconds_moves_nothing_on_any_number_of_nodes() {
    everywhere(|world, nodes| {
        for jump in [10 * DAY, -10 * DAY, 3_600 * SECOND, 20 * SECOND] {
            for hit in 1..=nodes {
                world.machines.iter_mut().take(hit).for_each(|machine| machine.wall_off = jump);
                world.run(20);
                assert!(
                    world.worst() < SLACK,
                    "{nodes} nodes, {hit} leapt by {jump}: off by {}",
                    world.worst()
                );
                assert!((world.log_time - world.truth()).abs() < SLACK);
                world.machines.iter_mut().for_each(|machine| machine.wall_off = 0);
                world.run(20);
                assert!(world.worst() < SLACK && world.all_agree());
            }
        }
        assert_eq!(world.refused, 0, "no entry was refused");
    });
}

#[test]
fn a_minority_in_another_time_zone_is_outvoted_for_good_and_says_so() {
    for off in [2 * 3_600 * SECOND, -3_600 * SECOND, 60 * SECOND, 6 * SECOND] {
        let mut world = World::started(3, 7);
        world.machines[0].wall_off = off;
        world.run(1_000);
        assert!(world.worst() < SLACK, "off by {}", world.worst());
        assert!(world.says_off(0) && !world.says_off(1) && !world.says_off(2));
        assert_eq!(world.refused, 0, "the first node leads and stamps by the cluster clock");
    }
}

#[test]
fn a_quorum_that_stays_at_another_time_is_followed_after_the_hold_and_not_before() {
    everywhere(|world, nodes| {
        let quorum = nodes / 2 + 1;
        world.machines.iter_mut().take(quorum).for_each(|machine| machine.wall_off = 3_600 * SECOND);
        let hold = u64::try_from(HOLD / SECOND).unwrap();
        world.run(hold - 5);
        assert!(world.worst() < SLACK, "not yet");
        world.run(10);
        assert!((world.worst() - 3_600 * SECOND).abs() < SLACK, "followed: {}", world.worst());
        assert!(world.all_agree(), "every node has stepped");
        assert!(
            world.refused <= 2,
            "stamps wait while some nodes have stepped and others have not: {}",
            world.refused
        );
    });
}

#[test]
fn a_stopped_wall_clock_is_outvoted_and_a_stopped_one_alone_is_held_off() {
    everywhere(|world, nodes| {
        let now = world.truth();
        world.machines[0].wall_stopped = Some(now);
        world.run(30);
        assert!(world.worst() < AGREE + SLACK, "{nodes} nodes: off by {}", world.worst());
        if nodes > 1 {
            world.run(100);
            assert!(world.worst() < AGREE + SLACK);
            assert!(world.says_off(0));
        }
        assert_eq!(world.refused, 0);
    });
}

#[test]
fn clocks_that_drift_apart_stay_together_while_they_hear_of_each_other() {
    everywhere(|world, _| {
        for (machine, ppm) in world.machines.iter_mut().zip([500, -500, 200]) {
            machine.drift_ppm = ppm;
        }
        world.run(3_000);
        assert!(world.all_agree());
        assert_eq!(world.refused, 0);
        let clusters: Vec<Micros> =
            (0..world.machines.len()).map(|node| world.cluster(node).unwrap()).collect();
        let spread = clusters.iter().max().unwrap() - clusters.iter().min().unwrap();
        assert!(spread < SLACK, "{spread} apart");
    });
}

#[test]
fn a_node_whose_steady_clock_lost_an_hour_adopts_the_time_of_the_others() {
    let mut world = World::started(3, 3);
    world.machines[0].steady_lost = 3_600 * SECOND;
    let before = world.log_time;
    world.run(3);
    assert!(world.worst() < AGREE + SLACK, "off by {}", world.worst());
    assert!(world.log_time >= before && world.log_time - world.truth() < SLACK);
    assert!(world.all_agree());
}

#[test]
fn a_node_that_starts_with_a_wrong_wall_clock_takes_the_time_of_the_cluster() {
    let mut world = World::started(3, 9);
    world.machines[2].up = false;
    world.run(40);
    world.machines[2].clocks = Discipline::new(2);
    world.machines[2].wall_off = -56 * 365 * DAY;
    world.machines[2].up = true;
    world.run(3);
    assert!(world.worst() < SLACK);
    assert!(world.says_off(2));
}

#[test]
fn members_that_start_with_clocks_that_disagree_have_no_time_until_a_quorum_agrees() {
    let mut world = World::new(3, 4);
    world.machines[1].wall_off = 3_600 * SECOND;
    world.machines[2].wall_off = -3_600 * SECOND;
    world.run(30);
    assert_eq!((world.stamped, world.refused), (0, 30));
    world.machines[1].wall_off = 0;
    world.run(5);
    assert!(world.worst() < SLACK && world.all_agree());
}

#[test]
fn a_node_that_is_cut_off_may_not_stamp_once_its_readings_are_old() {
    let mut world = World::started(3, 5);
    world.machines[1].up = false;
    world.machines[2].up = false;
    world.run(60);
    assert_eq!(world.machines[0].verdict.unwrap().standing, Standing::Alone);
}

#[test]
fn random_faults_on_a_minority_never_move_log_time_beyond_the_bound() {
    for seed in 0..300 {
        let mut world = World::started(3, seed);
        for _ in 0..40 {
            let victim = usize::try_from(world.below(3)).unwrap();
            let offs = [0, 10 * DAY, -10 * DAY, 90 * SECOND, -WALL_BOUND - SECOND, 300_000];
            let off = offs[usize::try_from(world.below(6)).unwrap()];
            world.machines.iter_mut().for_each(|machine| machine.wall_off = 0);
            world.machines[victim].wall_off = off;
            let before = (world.log_time, world.truth());
            let time = 1 + world.below(90);
            world.run(time);
            assert!(world.log_time >= before.0, "seed {seed}: log time ran back");
            let moved = (world.log_time - before.0) - (world.truth() - before.1);
            assert!(moved.abs() < AGREE + SLACK, "seed {seed}: log time moved by {moved} beside the truth");
            assert!(world.worst() < AGREE, "seed {seed}: off by {}", world.worst());
        }
        assert_eq!(world.refused, 0, "seed {seed}");
    }
}

#[test]
fn estimates_that_all_drifted_apart_find_each_other_at_once() {
    for lost in [[0, 5, 20], [3, 0, 40], [10, 15, 30]] {
        let mut world = World::started(3, 6);
        for (machine, lost) in world.machines.iter_mut().zip(lost) {
            machine.steady_lost = lost * SECOND;
        }
        world.run(6);
        assert!(world.all_agree(), "{lost:?}");
        assert!(world.worst() < AGREE, "{lost:?}: off by {}", world.worst());
    }
}

#[test]
fn two_members_whose_estimates_are_an_hour_apart_stamp_nothing() {
    let mut world = World::started(3, 8);
    world.machines[2].up = false;
    world.machines[1].steady_lost = 3_600 * SECOND;
    world.machines[1].wall_off = -3_600 * SECOND;
    // The last reply of the third one is used for half a minute.
    world.run(35);
    world.stamped = 0;
    world.run(40);
    assert!(!world.all_agree());
    assert_eq!(world.stamped, 0);
}
