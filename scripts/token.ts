import { Command, Option } from 'commander';
import { DevAccess, stateDirOption } from './lib/dev-access.ts';
import { runScript } from './lib/user-error.ts';

interface Flags {
  readonly plan: string;
  readonly service?: string;
  readonly stateDir: string;
}

/** `npm run --silent token`: prints an access token of a demo account, or a service token, of `npm start`. */
await runScript(async () => {
  const { plan, service, stateDir } = new Command('npm run --silent token --')
    .description('Prints an access token of a demo account, for clients and examples.')
    .option('--plan <plan>', 'plan of the demo account', 'pro')
    .addOption(new Option('--service <scope>', 'print a service token with this scope instead, such as usage:read'))
    .addOption(stateDirOption)
    .parse()
    .opts<Flags>();
  const access = new DevAccess({ stateDir });
  const token = service === undefined ? access.userToken(plan) : access.serviceToken('token-cli', service);
  process.stdout.write(`${await token}\n`);
  return 0;
});
