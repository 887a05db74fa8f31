export { startSharedStack as default } from './shared-stack.ts';
