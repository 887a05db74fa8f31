import { beforeAll, describe, expect, it } from '@jest/globals';
import { ANSWER, type Expected, MODEL_INPUTS } from '../support/model-inputs.ts';
import { type LoggedEvent, ModelRuns } from '../support/model-runs.ts';
import { ModelServer } from '../support/model-server.ts';
import { closeAfter } from '../support/open-resources.ts';

let model: ModelServer;
let runs: ModelRuns;

beforeAll(async () => {
  model = await ModelServer.start();
  closeAfter('file', () => model.close());
  runs = await ModelRuns.start(model);
});

const of = (events: readonly LoggedEvent[], type: string) => events.filter((event) => event.type === type);
const textOf = (events: readonly LoggedEvent[], type: string, field: string) =>
  of(events, type)
    .map((event) => event[field])
    .join('');

/** Whether the run did what is expected, as an object with the fields of the expectation. */
async function seen({ end, events, userId }: Awaited<ReturnType<ModelRuns['run']>>, expected: Expected) {
  const [first, second] = model.requests;
  const results = second?.body.messages.filter(({ role }) => role === 'tool').map(({ content }) => content) ?? [];
  const last = events.at(-1);
  return {
    end,
    requests: model.requests.length,
    ...('answer' in expected ? { answer: last?.final_response } : {}),
    ...('reasoning' in expected ? { reasoning: textOf(events, 'agent_reasoning', 'reasoning') } : {}),
    ...('ran' in expected
      ? { ran: of(events, 'tool_executing').map(({ tool_name, arguments: given }) => [tool_name, given]) }
      : {}),
    ...('results' in expected ? { results: results.map((result, at) => partOf(result, expected.results?.[at])) } : {}),
    ...('error' in expected ? { error: last?.error } : {}),
    ...('completed' in expected ? { completed: last } : {}),
    ...('records' in expected ? { records: await runs.records({ userId }) } : {}),
    ...('sent' in expected ? { sent: second?.body.messages.slice(first?.body.messages.length) } : {}),
  };
}

const partOf = (whole: string | null, part = '') => (whole?.includes(part) ? part : whole);

describe('an input of a real model endpoint', () => {
  it.each(MODEL_INPUTS.map((input) => [`${input.id}: ${input.situation}`, input] as const))(
    '%s',
    async (_label, { replies, settings, expected }) => {
      model.requests.length = 0;
      model.script = (_request, at) => replies[at] ?? ANSWER;
      const run = await runs.run({ settings: { first_chunk_seconds: 2, silence_seconds: 2, ...settings } });
      expect(await seen(run, expected)).toMatchObject(expected);
    },
  );
});
