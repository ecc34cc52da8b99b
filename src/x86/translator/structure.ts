/**
 * Structured control flow for WebAssembly from a region's graph, by its dominator tree (Ramsey, "Beyond Relooper",
 * ICFP 2022).
 *
 * A node that several forward edges reach is a merge: its code stands behind a block that those edges leave. A node
 * that an edge reaches backwards is a loop head. What the tree cannot express (an edge back to a node that does not
 * dominate its source) goes through the dispatcher at the top, which also serves the entries.
 */
import type { Func, I32, Label } from '../../wasm/index.ts';
import { i32, type Local } from '../../wasm/index.ts';

export interface Graph {
  /** Number of nodes; node 0 is the first entry. */
  readonly size: number;
  readonly successors: readonly (readonly number[])[];
  readonly entries: readonly number[];
}

export interface Emission {
  readonly f: Func;
  /** Which entry the dispatcher is to take: a position among the graph's entries. */
  readonly selector: Local<'i32'>;
  /** Called where a node's code begins; merge: other code than what was emitted last may lead here. */
  entering(index: number, merge: boolean): void;
  /** Emits a node's code; it leaves through `go(successor)`, which must be the last thing on every path. */
  node(index: number, go: (successor: number) => void): void;
  /** Emitted ahead of every way from a node (null: from the dispatcher) to a node. */
  going(from: number | null, to: number): void;
  /** Emitted before a branch to where several ways meet. */
  branching(): void;
  /** Emitted where control is about to go backwards to a node. */
  backwards(successor: number): void;
}

export function emitGraph(graph: Graph, emission: Emission): void {
  const { f, selector } = emission;
  const ROOT = graph.size;
  // Entries, and nodes that only the dispatcher can reach backwards.
  const dispatched = [...graph.entries];
  let order: Order;
  for (;;) {
    order = analyse(graph, dispatched, ROOT);
    const irreducible = order.retreating.filter(
      ([from, to]) => !order.dominates(to, from) && !dispatched.includes(to),
    );
    if (irreducible.length === 0) break;
    dispatched.push(irreducible[0]![1]);
  }
  const { rpo, children, merges, heads } = order;

  let dispatcher: Label | null = null;
  const labels = new Map<number, Label>();
  const loops = new Map<number, Label>();

  const go = (from: number, to: number): void => {
    const backwards = rpo[to]! <= rpo[from]!;
    emission.going(from === ROOT ? null : from, to);
    if (from !== ROOT && (merges.has(to) || heads.has(to) || dispatched.includes(to))) emission.branching();
    if (backwards) {
      emission.backwards(to);
      const loop = loops.get(to);
      if (loop !== undefined && order.dominates(to, from)) f.br(loop);
      else {
        f.set(selector, i32.const(dispatched.indexOf(to)));
        f.br(dispatcher!);
      }
      return;
    }
    const label = labels.get(to);
    if (label !== undefined) f.br(label);
    else tree(to);
  };

  const tree = (node: number): void => {
    const behind = children[node]!.filter((child) => merges.has(child)).sort((a, b) => rpo[b]! - rpo[a]!);
    if (node !== ROOT) emission.entering(node, merges.has(node) || heads.has(node));
    const body = () => within(node, behind);
    if (heads.has(node))
      f.loop((label) => {
        loops.set(node, label);
        body();
      });
    else body();
  };

  const within = (node: number, behind: readonly number[]): void => {
    const [last, ...rest] = behind;
    if (last === undefined) {
      if (node === ROOT) dispatch();
      else emission.node(node, (successor) => go(node, successor));
      return;
    }
    f.block((label) => {
      labels.set(last, label);
      within(node, rest);
    });
    labels.delete(last);
    tree(last);
  };

  const dispatch = () => {
    const single = dispatched.length === 1;
    if (single) {
      go(ROOT, dispatched[0]!);
      return;
    }
    f.switch(
      selector as I32,
      dispatched.slice(0, -1).map((node) => () => go(ROOT, node)),
      () => go(ROOT, dispatched[dispatched.length - 1]!),
    );
  };

  f.loop((label) => {
    dispatcher = label;
    tree(ROOT);
  });
}

interface Order {
  rpo: number[];
  children: number[][];
  /** Nodes with several forward edges into them. */
  merges: Set<number>;
  /** Loop heads. */
  heads: Set<number>;
  retreating: [from: number, to: number][];
  dominates(a: number, b: number): boolean;
}

function analyse(graph: Graph, dispatched: readonly number[], root: number): Order {
  const successors = [...graph.successors, dispatched];
  const count = graph.size + 1;
  // Reverse postorder, iteratively.
  const postorder: number[] = [];
  const visited = new Uint8Array(count);
  const stack: [node: number, next: number][] = [[root, 0]];
  visited[root] = 1;
  while (stack.length > 0) {
    const top = stack[stack.length - 1]!;
    const list = successors[top[0]]!;
    if (top[1] < list.length) {
      const to = list[top[1]++]!;
      if (visited[to] === 0) {
        visited[to] = 1;
        stack.push([to, 0]);
      }
    } else {
      postorder.push(top[0]);
      stack.pop();
    }
  }
  const rpo = new Array<number>(count).fill(-1);
  postorder.reverse().forEach((node, i) => {
    rpo[node] = i;
  });
  const predecessors: number[][] = Array.from({ length: count }, () => []);
  for (const node of postorder) for (const to of successors[node]!) predecessors[to]!.push(node);
  // Immediate dominators (Cooper, Harvey, Kennedy).
  const idom = new Array<number>(count).fill(-1);
  idom[root] = root;
  const meet = (a: number, b: number): number => {
    let x = a;
    let y = b;
    while (x !== y) {
      while (rpo[x]! > rpo[y]!) x = idom[x]!;
      while (rpo[y]! > rpo[x]!) y = idom[y]!;
    }
    return x;
  };
  for (let changed = true; changed; ) {
    changed = false;
    for (const node of postorder) {
      if (node === root) continue;
      let best = -1;
      for (const from of predecessors[node]!)
        if (idom[from] !== -1) best = best === -1 ? from : meet(best, from);
      if (idom[node] !== best) {
        idom[node] = best;
        changed = true;
      }
    }
  }
  const dominates = (a: number, b: number): boolean => {
    let x = b;
    while (rpo[x]! > rpo[a]!) x = idom[x]!;
    return x === a;
  };
  const children: number[][] = Array.from({ length: count }, () => []);
  for (const node of postorder) if (node !== root) children[idom[node]!]!.push(node);
  const merges = new Set<number>();
  const heads = new Set<number>();
  const retreating: [number, number][] = [];
  for (const node of postorder) {
    let forward = 0;
    for (const from of predecessors[node]!) {
      if (rpo[from]! < rpo[node]!) forward++;
      else {
        retreating.push([from, node]);
        if (dominates(node, from)) heads.add(node);
      }
    }
    // From the dispatcher every entry is entered by a branch of its own.
    if (forward > 1 || (dispatched.length > 1 && dispatched.includes(node))) merges.add(node);
  }
  return { rpo, children, merges, heads, retreating, dominates };
}
