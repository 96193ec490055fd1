# The pipeline on a CPU: docker build -t meal . && docker run --rm -it meal
# To keep the results: -v "$PWD":/home/meal/project (after `make env` inside the container).
FROM python:3.11-slim-bookworm

RUN apt-get update \
    && apt-get install --yes --no-install-recommends git make \
    && rm -rf /var/lib/apt/lists/*

RUN useradd --create-home meal
USER meal
WORKDIR /home/meal/project

# PyTorch's wheels without CUDA, of the versions in constraints.txt.
ENV PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu \
    PIP_NO_CACHE_DIR=1

# The libraries first: a change to the code does not install them again.
COPY --chown=meal Makefile constraints.txt pyproject.toml ./
RUN mkdir meal stages && touch meal/__init__.py stages/__init__.py && make env && rm -r meal stages

COPY --chown=meal . .
RUN touch .venv/.installed

CMD ["make", "repro"]
