import { isTollgateVariable, UnusableConfiguration, urlFault } from '../config.ts';

/** `${NAME}`: the value of an environment variable. */
const REFERENCE = /\$\{([A-Za-z_][A-Za-z0-9_]*)\}/g;
/** Headers and query parameters whose value is a secret. */
const SECRET_NAME = /auth|key|token|secret|cookie|password|signature/i;

export interface ReferenceOptions {
  readonly variable: (name: string) => string | undefined;
  readonly production: boolean;
}

/** Resolves references of agents.json to environment variables, so that no secret is stored in the file. */
export class References {
  readonly #options: ReferenceOptions;
  /** Part of agents.json that the errors name. */
  readonly #part: string;

  constructor(options: ReferenceOptions, part: string) {
    this.#options = options;
    this.#part = part;
  }

  /** @throws UnusableConfiguration for an address that requests must not go to */
  checkUrl(url: string, label: string): void {
    const fault = urlFault(url, this.#options.production);
    if (fault !== undefined) throw this.#unusable(`${label}: url: ${fault}`);
  }

  /** Resolves headers or query parameters. @throws UnusableConfiguration for a secret that is in the file itself */
  values(values: Readonly<Record<string, string>>, label: string): Record<string, string> {
    return Object.fromEntries(
      Object.entries(values).map(([name, value]) => {
        const where = `${label}: ${name}`;
        return [name, SECRET_NAME.test(name) ? this.secret(value, where) : this.#resolved(value, where)];
      }),
    );
  }

  /** @throws UnusableConfiguration for a secret that is in the file itself */
  secret(value: string, where: string): string {
    if (value.search(REFERENCE) < 0) {
      throw this.#unusable(`${where} must refer to an environment variable, \${NAME}`);
    }
    return this.#resolved(value, where);
  }

  #resolved(value: string, where: string): string {
    return value.replaceAll(REFERENCE, (_match, name: string) => {
      const problem = isTollgateVariable(name) ? 'is a variable of Tollgate' : 'is not set in the environment';
      const resolved = isTollgateVariable(name) ? undefined : this.#options.variable(name);
      if (resolved === undefined) throw this.#unusable(`${where}: ${name} ${problem}`);
      return resolved;
    });
  }

  #unusable(problem: string): UnusableConfiguration {
    return new UnusableConfiguration(`agents.json: ${this.#part}: ${problem}\n`);
  }
}
