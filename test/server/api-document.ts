/** Reads the API's OpenAPI document as a client would: its operations, and its schemas as something that can be checked. */
import { z } from 'zod';

interface JsonSchema {
  readonly [key: string]: unknown;
}

export interface DescribedParameter {
  readonly name: string;
  readonly in: 'path' | 'query';
  readonly required: boolean;
  readonly schema: JsonSchema;
}

interface Content {
  readonly [type: string]: { readonly schema: JsonSchema };
}

interface DescribedOperation {
  readonly operationId: string;
  readonly parameters?: readonly DescribedParameter[];
  readonly requestBody?: { readonly required: boolean; readonly content: Content };
  readonly responses: Readonly<Record<string, { readonly description: string; readonly content?: Content }>>;
}

export interface ApiDocument {
  readonly openapi: string;
  readonly security: readonly Readonly<Record<string, readonly string[]>>[];
  readonly components: {
    readonly schemas: Readonly<Record<string, JsonSchema>>;
    readonly securitySchemes: Readonly<Record<string, { readonly type: string; readonly scheme: string }>>;
  };
  readonly paths: Readonly<Record<string, Readonly<Record<string, DescribedOperation>>>>;
}

export interface Operation {
  readonly id: string;
  readonly method: string;
  /** As the document writes it: `/v1/guests/{name}`. */
  readonly path: string;
  readonly described: DescribedOperation;
}

export const operationsOf = ({ paths }: ApiDocument): Operation[] =>
  Object.entries(paths).flatMap(([path, methods]) =>
    Object.entries(methods).map(([method, described]) => ({
      id: described.operationId,
      method: method.toUpperCase(),
      path,
      described,
    })),
  );

/**
 * A schema of the document, for checking what came over the wire. An object may have the fields that are described and no
 * others: JSON Schema lets it have more, but an undescribed field is what a check is to find.
 */
export function schemaOf({ components }: ApiDocument, schema: JsonSchema): z.ZodType {
  const all = { ...schema, $defs: components.schemas };
  return z.fromJSONSchema(seal(all) as Parameters<typeof z.fromJSONSchema>[0]);
}

/** Closes every object that says nothing of further fields, and points references to where zod looks for them. */
function seal(part: unknown): unknown {
  if (Array.isArray(part)) return part.map(seal);
  if (typeof part !== 'object' || part === null) return part;
  const sealed: Record<string, unknown> = {};
  for (const [key, value] of Object.entries(part)) {
    if (key === 'example') continue;
    sealed[key] =
      key === '$ref' ? (value as string).replace('#/components/schemas/', '#/$defs/') : seal(value);
  }
  const object = typeof sealed.properties === 'object' && !('additionalProperties' in sealed);
  return object ? { ...sealed, additionalProperties: false } : sealed;
}
