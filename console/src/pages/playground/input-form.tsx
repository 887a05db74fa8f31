import type { InputAnswer, InputRequest } from '@tollgate/client';
import { useState } from 'preact/hooks';
import { Json, LongText, Time } from '../../ui/text.tsx';

interface InputFormProps {
  readonly request: InputRequest;
  readonly onAnswer: (answer: InputAnswer) => Promise<void>;
}

/** Answers what a run asks its user: an approval, a choice or a form. */
export function InputForm({ request, onAnswer }: InputFormProps) {
  const [pending, setPending] = useState(false);
  const [problem, setProblem] = useState<string>();
  const answer = async (given: InputAnswer) => {
    setPending(true);
    await onAnswer(given);
    setPending(false);
  };
  const submit = (event: SubmitEvent) => {
    event.preventDefault();
    try {
      const content = contentOf(request, new FormData(event.currentTarget as HTMLFormElement));
      void answer(content ? { action: 'accept', content } : { action: 'accept' });
    } catch (error) {
      setProblem(error instanceof Error ? error.message : String(error));
    }
  };
  return (
    <form class="input-request" onSubmit={submit}>
      <div class="row spread">
        <h3>The run asks: {request.kind}</h3>
        <span class="muted">
          until <Time at={request.expires_at} exact />
        </span>
      </div>
      <LongText text={request.message} />
      {request.tool_name && <Json value={{ [request.tool_name]: request.arguments }} label="The call to approve" />}
      <Fields request={request} />
      {problem && <div role="alert">{problem}</div>}
      <div class="row">
        <button type="submit" class="button" data-kind="primary" disabled={pending}>
          {request.kind === 'approval' ? 'Approve' : 'Answer'}
        </button>
        <button type="button" class="button" disabled={pending} onClick={() => void answer({ action: 'decline' })}>
          Decline
        </button>
      </div>
    </form>
  );
}

interface Property {
  readonly type?: string;
  readonly title?: string;
  readonly description?: string;
  readonly enum?: readonly unknown[];
}

function Fields({ request }: { readonly request: InputRequest }) {
  if (request.kind === 'choice') {
    return (
      <fieldset class="choices">
        <legend class="visually-hidden">Choices</legend>
        {request.choices?.map((choice, index) => (
          <label key={choice}>
            <input type="radio" name="choice" value={choice} required defaultChecked={index === 0} />{' '}
            <bdi>{choice}</bdi>
          </label>
        ))}
      </fieldset>
    );
  }
  if (request.kind !== 'form') return null;
  const { properties, required } = partsOf(request);
  return (
    <>
      {Object.entries(properties).map(([name, property]) => (
        <div key={name} class="field">
          <label for={`input-${name}`}>
            <bdi>{property.title ?? name}</bdi> {property.description && <bdi>{property.description}</bdi>}
          </label>
          <PropertyInput name={name} property={property} required={required.includes(name)} />
        </div>
      ))}
    </>
  );
}

function PropertyInput({ name, property, required }: { name: string; property: Property; required: boolean }) {
  if (property.enum) {
    return (
      <select class="input" id={`input-${name}`} name={name} required={required}>
        {!required && <option value="" />}
        {property.enum.map((value) => (
          <option key={String(value)}>{String(value)}</option>
        ))}
      </select>
    );
  }
  switch (property.type) {
    case 'boolean':
      return <input type="checkbox" id={`input-${name}`} name={name} />;
    case 'integer':
    case 'number':
      return <input class="input" type="number" step="any" id={`input-${name}`} name={name} required={required} />;
    case 'string':
      return <input class="input" id={`input-${name}`} name={name} required={required} dir="auto" />;
    default:
      return <textarea class="input mono" id={`input-${name}`} name={name} required={required} placeholder="JSON" />;
  }
}

function partsOf({ schema = {} }: InputRequest) {
  return {
    properties: (schema.properties ?? {}) as Readonly<Record<string, Property>>,
    required: (schema.required ?? []) as readonly string[],
  };
}

/** @throws SyntaxError for a field that must be JSON and is not */
function contentOf(request: InputRequest, form: FormData): Record<string, unknown> | undefined {
  if (request.kind === 'approval') return undefined;
  if (request.kind === 'choice') return { choice: form.get('choice') };
  const content: Record<string, unknown> = {};
  for (const [name, { type, enum: values }] of Object.entries(partsOf(request).properties)) {
    const text = String(form.get(name) ?? '');
    if (type === 'boolean') content[name] = form.has(name);
    else if (text === '') continue;
    else if (values) content[name] = values.find((value) => String(value) === text);
    else if (type === 'string') content[name] = text;
    else content[name] = JSON.parse(text);
  }
  return content;
}
