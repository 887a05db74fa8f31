import { afterAll, afterEach } from '@jest/globals';
import { closeFileResources, closeTestResources } from './open-resources.ts';

/** Jest loads this before every test file. It closes what a test opened, whatever its outcome. */
afterEach(closeTestResources);
afterAll(closeFileResources);
