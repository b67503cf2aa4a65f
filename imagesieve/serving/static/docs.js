// Shows /openapi.json with Swagger UI.
SwaggerUIBundle({
  url: "/openapi.json",
  dom_id: "#swagger-ui",
  deepLinking: true,
  docExpansion: "list",
  tryItOutEnabled: true,
  defaultModelsExpandDepth: 0,
  validatorUrl: null, // asks no other server
});
