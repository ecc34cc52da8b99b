/** What a domain other than Domain 0 may use of the store. The numbers are those that Xen's xenstored has. */
export interface Quota {
  /** Nodes it owns. */
  nodes: number;
  /** Bytes of one node: value, children's names and permissions. */
  nodeBytes: number;
  /** Entries in a node's list of permissions. */
  permissions: number;
  watches: number;
  /** Transactions open at once. */
  transactions: number;
  /** Nodes that one transaction may look at. */
  transactionNodes: number;
  /** Answers and events not yet taken: beyond this its requests wait. */
  outstanding: number;
  /** Bytes of answers and events not yet taken: beyond this further events are lost. */
  outputBytes: number;
}

export const DEFAULT_QUOTA: Readonly<Quota> = {
  nodes: 1000,
  nodeBytes: 2048,
  permissions: 5,
  watches: 128,
  transactions: 10,
  transactionNodes: 1024,
  outstanding: 20,
  outputBytes: 1 << 20,
};
