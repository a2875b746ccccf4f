// Runs an Edge Function as Supabase's runtime does, on a free port that it prints: deno run edge.ts index.ts
const serve = Deno.serve;
Deno.serve = ((handler: Deno.ServeHandler) =>
  serve({
    hostname: "127.0.0.1",
    port: 0,
    onListen: ({ port }) => console.log(JSON.stringify({ port })),
  }, handler)) as typeof Deno.serve;
await import(Deno.args[0]);
