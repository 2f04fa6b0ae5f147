{{- define "samovar.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" }}
{{- end }}

{{- define "samovar.fullname" -}}
{{- if .Values.fullnameOverride }}
{{- .Values.fullnameOverride | trunc 52 | trimSuffix "-" }}
{{- else }}
{{- $name := include "samovar.name" . }}
{{- if contains $name .Release.Name }}
{{- .Release.Name | trunc 52 | trimSuffix "-" }}
{{- else }}
{{- printf "%s-%s" .Release.Name $name | trunc 52 | trimSuffix "-" }}
{{- end }}
{{- end }}
{{- end }}

{{- define "samovar.selector" -}}
app.kubernetes.io/name: {{ include "samovar.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "samovar.labels" -}}
{{ include "samovar.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end }}

{{- define "samovar.serviceAccountName" -}}
{{- default (include "samovar.fullname" .) .Values.serviceAccount.name }}
{{- end }}

{{- define "samovar.image" -}}
{{- if .Values.image.digest -}}
{{ .Values.image.repository }}@{{ .Values.image.digest }}
{{- else -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end -}}
{{- end }}

{{/* What a schema cannot say: values that contradict each other. */}}
{{- define "samovar.check" -}}
{{- if not .Values.image.repository }}
{{- fail "image.repository: is needed: where your registry has the image that you built" }}
{{- end }}
{{- if and .Values.persistence.enabled (gt (int .Values.replicas) 1) }}
{{- fail "replicas: one volume allows one pod; set persistence.enabled=false for several, each with sessions of its own" }}
{{- end }}
{{- if and .Values.persistence.enabled .Values.autoscaling.enabled }}
{{- fail "autoscaling.enabled: one volume allows one pod; set persistence.enabled=false" }}
{{- end }}
{{- $methods := include "samovar.methods" . | fromJsonArray }}
{{- if has "none" $methods }}
{{- fail "settings.auth.methods: none is for callers of the same machine" }}
{{- end }}
{{- if and (has "mtls" $methods) (not .Values.secrets.clientCa) }}
{{- fail "secrets.clientCa: is needed with mtls in settings.auth.methods" }}
{{- end }}
{{- if and .Values.secrets.clientCa (not .Values.secrets.tls) }}
{{- fail "secrets.clientCa: needs secrets.tls: certificates are shown to the pod itself" }}
{{- end }}
{{- if and .Values.secrets.clientCa .Values.gateway.enabled }}
{{- fail "secrets.clientCa: no certificate of a caller passes the gateway" }}
{{- end }}
{{- if and (has "api_key" $methods) (not .Values.persistence.enabled) (not .Values.secrets.apiKeys) }}
{{- fail "secrets.apiKeys: is needed without persistence: keys that are added in a pod die with it" }}
{{- end }}
{{- range $section := list "server" "state" "auth" "credentials" "telemetry" }}
{{- if hasKey $.Values.settings $section }}
{{- range $key, $value := index $.Values.settings $section }}
{{- if has (printf "%s.%s" $section $key) (list "server.listen" "server.health_listen" "server.public_health" "server.tls" "server.tls_certificate" "server.tls_key" "server.tls_client_ca" "server.drain_wait" "server.drain_grace" "server.stop_budget" "server.platform_limit" "state.directory" "auth.api_key" "auth.page_key" "credentials.provider" "credentials.path" "telemetry.endpoint" "telemetry.sample_ratio" "telemetry.prometheus_listen") }}
{{- fail (printf "settings.%s.%s: is decided by the chart's own values" $section $key) }}
{{- end }}
{{- end }}
{{- end }}
{{- end }}
{{- end }}

{{/* How callers show who they are, as JSON. */}}
{{- define "samovar.methods" -}}
{{- dig "auth" "methods" (list "api_key") .Values.settings | toJson }}
{{- end }}

{{/* The settings file: the chart's part over the installation's. */}}
{{- define "samovar.settings" -}}
{{- $server := dict
  "listen" (printf "0.0.0.0:%d" (int .Values.service.port))
  "health_listen" (printf "0.0.0.0:%d" (int .Values.service.healthPort))
  "tls" (ternary "files" "terminated" (ne .Values.secrets.tls ""))
  "drain_wait" (float64 .Values.drain.waitSeconds)
  "drain_grace" (float64 .Values.drain.graceSeconds)
  "stop_budget" (float64 .Values.drain.stopSeconds)
  "platform_limit" (float64 (include "samovar.grace" .)) }}
{{- if .Values.secrets.tls }}
{{- $server = merge $server (dict "tls_certificate" "/etc/samovar/tls/tls.crt" "tls_key" "/etc/samovar/tls/tls.key") }}
{{- end }}
{{- with .Values.secrets.clientCa }}
{{- $_ := set $server "tls_client_ca" "/etc/samovar/client-ca/ca.crt" }}
{{- end }}
{{- $credentials := dict "provider" "mount" "path" (ternary "/etc/samovar/credentials/key" "/etc/samovar/credentials" .Values.credentials.shared) }}
{{- $ours := dict
  "server" $server
  "auth" (dict "methods" (include "samovar.methods" . | fromJsonArray) "page_key" "/etc/samovar/service/page-key" "api_key" (dict "pepper" "/etc/samovar/service/pepper"))
  "credentials" $credentials }}
{{- $telemetry := dict "sample_ratio" (float64 .Values.telemetry.sampleRatio) }}
{{- with .Values.telemetry.endpoint }}
{{- $_ := set $telemetry "endpoint" . }}
{{- end }}
{{- with .Values.telemetry.metricsPort }}
{{- $_ := set $telemetry "prometheus_listen" (printf "0.0.0.0:%d" (int .)) }}
{{- end }}
{{- $_ := set $ours "telemetry" $telemetry }}
{{- mergeOverwrite (deepCopy .Values.settings) $ours | toToml }}
{{- end }}

{{/* What lies between SIGTERM and SIGKILL. */}}
{{- define "samovar.grace" -}}
{{- add .Values.drain.waitSeconds .Values.drain.graceSeconds .Values.drain.stopSeconds 15 }}
{{- end }}
