/**
 * Maximum pending connections per node: half of a node's usual burst. A silent connection costs some 20 KB and lasts at
 * most 10 seconds, so all of them together cost 40 MB.
 */
const PER_NODE = 2_000;

export type PendingEntry =
  | { readonly admitted: true; readonly release: () => void }
  | { readonly admitted: false; readonly full: 'address' | 'node' };

/**
 * Counts pending connections per client address and per node. Together with the authentication deadline it bounds what
 * a client can occupy without a credential. Stores only addresses that have a pending connection.
 */
export class PendingConnections {
  readonly #perAddress: number;
  readonly #perNode: number;
  readonly #byAddress = new Map<string, number>();
  #total = 0;

  constructor({ perAddress }: { readonly perAddress: number }) {
    this.#perAddress = perAddress;
    // A limit per address above the node's limit is meant for a load generator or a single proxy.
    this.#perNode = Math.max(PER_NODE, perAddress);
  }

  get total(): number {
    return this.#total;
  }

  /** Counts a connection until the first call of its `release`. */
  add(address: string): PendingEntry {
    const count = this.#byAddress.get(address) ?? 0;
    if (count >= this.#perAddress) return { admitted: false, full: 'address' };
    if (this.#total >= this.#perNode) return { admitted: false, full: 'node' };
    this.#change(address, 1);
    let released = false;
    const release = () => {
      if (released) return;
      released = true;
      this.#change(address, -1);
    };
    return { admitted: true, release };
  }

  #change(address: string, by: 1 | -1): void {
    const count = (this.#byAddress.get(address) ?? 0) + by;
    if (count === 0) this.#byAddress.delete(address);
    else this.#byAddress.set(address, count);
    this.#total += by;
  }
}
