#!/usr/bin/env node
/** The program xl. */
import { runXl } from './xl.ts';

process.exit(await runXl(process.argv.slice(2)));
