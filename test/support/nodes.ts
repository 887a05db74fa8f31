import { type StackAddresses, stack } from './stack.ts';

/** The URL of a gateway of a stack, counted from 0; the shared stack has three. */
export function nodeUrl(index: number, of: StackAddresses = stack()): string {
  const node = of.gateways[index];
  if (!node) throw new Error(`the stack has ${of.gateways.length} gateways, no number ${index}`);
  return node.url;
}
