# One image recipe for every service: docker build --build-arg SERVICE=usage-ingest .
# Installed are exactly the dependencies the service declares, at the versions and hashes of requirements.lock.
FROM python:3.11.14-slim-bookworm AS build
RUN pip install --no-cache-dir uv==0.13.8
WORKDIR /quill
COPY pyproject.toml requirements.lock ./
COPY libs libs
COPY services services
COPY apps apps
COPY devtools devtools
ARG SERVICE
# Sibling packages come from these wheels and nowhere else, so that no index can put another under the same name.
RUN for library in libs/*; do uv build --quiet --wheel --out-dir wheels "$library"; done \
    && for wheel in wheels/*.whl; do \
         echo "$(basename "$wheel" | cut -d- -f1 | tr _ -) @ file://$PWD/$wheel"; \
       done > siblings.txt
RUN test -n "$SERVICE" \
    && folder=$(ls -d "services/$SERVICE" "devtools/$SERVICE" 2>/dev/null) \
    && uv venv --quiet /venv \
    && uv pip install --quiet --no-cache --no-sources --compile-bytecode --python /venv/bin/python \
         --overrides siblings.txt --constraints requirements.lock "./$folder" \
    && mkdir /app \
    && printf '#!/bin/sh\nexec /venv/bin/python -m quill_%s "$@"\n' "$(echo "$SERVICE" | tr - _)" > /app/run \
    && chmod 0755 /app/run

FROM python:3.11.14-slim-bookworm
ENV PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
COPY --from=build /venv /venv
COPY --from=build /app /app
USER 65534:65534
EXPOSE 8000
ENTRYPOINT ["/app/run"]
CMD ["serve"]
