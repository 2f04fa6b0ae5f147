{{- define "samovar.probe" -}}
grpc:
  port: {{ .root.Values.service.healthPort }}
  {{- with .service }}
  service: {{ . }}
  {{- end }}
{{- end }}
