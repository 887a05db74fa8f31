import {
  CLIENT_CAPABILITIES_META_KEY,
  type InputRequiredResult,
  type ServerContext,
} from '@modelcontextprotocol/server';
import { isObject } from '../lib/json.ts';
import type { InputExchange, InputRequests } from '../upstreams/input-requests.ts';
import type { RequestState, RequestStates, StatedRequest } from './request-states.ts';

/** One input round of a request that may need input. */
export interface InputRound {
  readonly input: InputExchange;
  /** State that the caller returned with its answer; undefined for a new request. */
  readonly before: RequestState | undefined;
  /** Builds the response with the input requests. */
  requireInput(inputRequests: InputRequests, state: Pick<RequestState, 'callId' | 'asked'>): InputRequiredResult;
}

/**
 * Returns capabilities, answers and sealed state of a request; undefined for the older era, in which servers can only
 * send input requests over a connection.
 */
export function inputExchangeOf({ mcpReq }: ServerContext, modern: boolean): InputExchange | undefined {
  if (!modern) return undefined;
  const capabilities: unknown = Reflect.get(mcpReq.envelope ?? {}, CLIENT_CAPABILITIES_META_KEY);
  return {
    capabilities: isObject(capabilities) ? capabilities : {},
    inputResponses: mcpReq.inputResponses,
    requestState: mcpReq.requestState(),
  };
}

/** Opens the request state of an input round. @throws TollgateError REQUEST_STATE_INVALID */
export function openInputRound(states: RequestStates, request: StatedRequest, input: InputExchange): InputRound {
  const { capabilities, inputResponses, requestState } = input;
  const before = requestState === undefined ? undefined : states.open(request, requestState);
  return {
    input: { capabilities, inputResponses, requestState: before?.state, server: before?.server },
    before,
    requireInput({ inputRequests, requestState: state, server }, { callId, asked }) {
      return {
        resultType: 'input_required',
        ...(Object.keys(inputRequests).length > 0
          ? { inputRequests: inputRequests as NonNullable<InputRequiredResult['inputRequests']> }
          : {}),
        requestState: states.seal(request, { server, callId, asked, state }),
      };
    },
  };
}
