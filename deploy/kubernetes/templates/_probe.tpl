{{- define "samovar.probe" -}}
{{- if .root.Values.secrets.tls -}}
exec:
  command:
    - samovar
    - health
    - --target=unix:/var/lib/samovar/operator.sock
    - --service={{ .service }}
{{- else -}}
grpc:
  port: {{ .root.Values.service.port }}
  {{- with .service }}
  service: {{ . }}
  {{- end }}
{{- end }}
{{- end }}
