// The page: one view at a time.

import { start } from './router.js';

start();
