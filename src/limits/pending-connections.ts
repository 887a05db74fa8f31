/**
 * Connections of a node that wait for authentication. Half of a node's usual burst: a silent one costs some 20 KB and
 * lasts 10 seconds at most, so that all of them together cost 40 MB.
 */
const PER_NODE = 2_000;

export type PendingEntry =
  | { readonly admitted: true; readonly release: () => void }
  | { readonly admitted: false; readonly full: 'address' | 'node' };

/**
 * Connections that are open and have not proved who they are, by address: what anybody can have without a credential is
 * bounded by this and by the deadline of each. As many addresses are remembered as have such a connection.
 */
export class PendingConnections {
  readonly #perAddress: number;
  readonly #perNode: number;
  readonly #byAddress = new Map<string, number>();
  #total = 0;

  constructor({ perAddress }: { readonly perAddress: number }) {
    this.#perAddress = perAddress;
    // One address that is allowed more than a node usually takes is a load generator, or the only proxy.
    this.#perNode = Math.max(PER_NODE, perAddress);
  }

  get total(): number {
    return this.#total;
  }

  /** Counts a connection in, until its `leave` is called for the first time. */
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
