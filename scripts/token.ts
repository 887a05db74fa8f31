import { Command, Option } from 'commander';
import { DEMO_PLANS, DevAccess, stateDirOption } from './lib/dev-access.ts';
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
    .addOption(new Option('--plan <plan>', 'plan of the demo account').choices(DEMO_PLANS).default('pro'))
    .option(
      '--service <scopes>',
      'print a service token with these scopes instead: usage:read, usage:write, events:write, admin:read, admin',
    )
    .addOption(stateDirOption)
    .parse()
    .opts<Flags>();
  const access = new DevAccess({ stateDir });
  const token = service === undefined ? access.userToken(plan) : access.serviceToken('token-cli', service);
  process.stdout.write(`${await token}\n`);
  return 0;
});
