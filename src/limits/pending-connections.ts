/**
 * Maximum pending connections per node: half of a node's usual burst. A silent connection costs some 20 KB and lasts at
 * most 10 seconds, so all of them together cost 40 MB.
 */
const PER_NODE = 2_000;

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

  /** Number of stored addresses. */
  get addresses(): number {
    return this.#byAddress.size;
  }

  /**
   * Counts a connection until its `remove`.
   * @returns undefined; or the limit that it exceeds, and then it is not counted
   */
  add(address: string): 'address' | 'node' | undefined {
    const count = this.#byAddress.get(address) ?? 0;
    if (count >= this.#perAddress) return 'address';
    if (this.#total >= this.#perNode) return 'node';
    this.#change(address, 1);
    return undefined;
  }

  /** Call it once for each connection that `add` counted. */
  remove(address: string): void {
    this.#change(address, -1);
  }

  #change(address: string, by: 1 | -1): void {
    const count = (this.#byAddress.get(address) ?? 0) + by;
    if (count === 0) this.#byAddress.delete(address);
    else this.#byAddress.set(address, count);
    this.#total += by;
  }
}
