import { describe, expect, it } from '@jest/globals';
import { formOf } from '../../src/protocol/forms.ts';
import { FormSchema, type InputRequest } from '../../src/protocol/input.ts';
import { checkedAnswer } from '../../src/runs/input-answer.ts';
import { questionOfArguments } from '../../src/tools/question.ts';

describe('an answer to an input request', () => {
  it('is accepted when the choices contain one of them twice, as models write them', () => {
    const answer = { action: 'accept', content: { choice: 'a' } } as const;
    expect(checkedAnswer({ kind: 'choice', message: 'Which?', choices: ['a', 'a', 'b'] }, answer)).toEqual(answer);
  });

  it('is accepted when a form names a required field or a value twice, and was stored so', () => {
    const schema = {
      type: 'object',
      properties: { size: { type: 'string', enum: ['s', 's', 'm'] } },
      required: ['size', 'size'],
    } as const;
    const answer = { action: 'accept', content: { size: 's' } } as const;
    const request = { kind: 'form', message: 'Which?', schema: schema as unknown as FormSchema } as const;
    expect(checkedAnswer(request, answer)).toEqual(answer);
    const wrong = { action: 'accept', content: { size: 'l' } } as const;
    expect(() => checkedAnswer(request, wrong)).toThrow('The answer does not fit the request');
  });
});

describe('the result of a tool of the page', () => {
  const request = { kind: 'tool', message: 'Run it', name: 't', arguments: {} } as unknown as InputRequest;
  const answerOf = (content: Record<string, unknown>) => checkedAnswer(request, { action: 'accept', content });

  it('is any JSON, or an error as text, and never both', () => {
    for (const content of [{ result: null }, { result: [1] }, { error: 'e'.repeat(2_000) }]) {
      expect(answerOf(content)).toEqual({ action: 'accept', content });
    }
    for (const content of [{}, { result: 1, error: 'e' }, { error: 5 }, { error: 'e'.repeat(2_001) }, { other: 1 }]) {
      expect(() => answerOf(content)).toThrow(
        expect.objectContaining({
          code: 'FORMAT_ERROR',
          message: expect.stringContaining('does not fit'),
          fields: { field: 'content' },
        }),
      );
    }
  });

  it('has 65,536 characters of JSON at most', () => {
    const frame = JSON.stringify({ result: '' }).length;
    const content = { result: 'r'.repeat(65_536 - frame) };
    expect(answerOf(content)).toEqual({ action: 'accept', content });
    expect(() => answerOf({ result: `${content.result}r` })).toThrow(
      expect.objectContaining({
        code: 'FORMAT_ERROR',
        message: 'The result of a tool may have 65536 characters of JSON.',
        fields: { field: 'content' },
      }),
    );
  });

  it('is stored without content when the user declines, as every other answer', () => {
    expect(checkedAnswer(request, { action: 'decline', content: { result: 1 } })).toEqual({ action: 'decline' });
    const approval = { kind: 'approval' } as unknown as InputRequest;
    expect(checkedAnswer(approval, { action: 'accept', content: { x: 1 } })).toEqual({ action: 'accept' });
  });
});

describe('a question of a model', () => {
  it('offers each choice once', () => {
    const question = questionOfArguments({ message: 'Which?', choices: ['a', 'a', 'b'] });
    expect(question).toEqual({ kind: 'choice', message: 'Which?', choices: ['a', 'b'] });
  });
});

describe('a form of another party', () => {
  it('reaches clients without repetitions in enum and required, which JSON Schema forbids', () => {
    const schema = {
      type: 'object',
      properties: { size: { type: 'string', enum: ['s', 's', 'm'] } },
      required: ['size', 'size'],
    };
    const valid = {
      type: 'object',
      properties: { size: { type: 'string', enum: ['s', 'm'] } },
      required: ['size'],
    };
    expect(FormSchema.parse(schema)).toEqual(valid);
    expect(formOf(schema)).toEqual(valid);
  });
});
