import { describe, expect, it } from '@jest/globals';
import { formOf } from '../../src/protocol/forms.ts';
import { FormSchema } from '../../src/protocol/input.ts';
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
