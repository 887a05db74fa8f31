import { afterAll, afterEach } from '@jest/globals';
import { closeFileResources, closeTestResources } from './open-resources.ts';

/** Loaded by jest in front of every test file: what a test opened is closed with it, whatever the test does. */
afterEach(closeTestResources);
afterAll(closeFileResources);
